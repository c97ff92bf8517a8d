// How to reach the server: flags, TLS, deadlines.
#ifndef HANMO_CLIENT_CONNECTION_H_
#define HANMO_CLIENT_CONNECTION_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "client/console.h"
#include "grpcpp/channel.h"
#include "grpcpp/client_context.h"

namespace hanmo {

struct ConnectionFlags {
  std::string server = "127.0.0.1:8001";
  // What sets `server` where --server does not, and what --help says of it.
  const char* environment = "HANMO_SERVER";
  std::string port = "where hanmo-server listens";
  bool tls = false;
  std::string ca_file;
  std::string cert_file;
  std::string key_file;
  std::string server_name;
  std::optional<absl::Duration> timeout;  // zero: none
};

// Declares --server and so on; `default_timeout` is what --help says of --timeout. `flags` outlives
// the parsing.
void AddConnectionFlags(CLI::App* app, const std::string& default_timeout, ConnectionFlags* flags);

// INVALID_ARGUMENT for flags that contradict each other or a malformed address; what file errors
// are where a PEM file cannot be read. Does not connect yet.
absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const ConnectionFlags& flags);

// So many channels, each with a connection of its own.
absl::StatusOr<std::vector<std::shared_ptr<grpc::Channel>>> OpenChannels(
    const ConnectionFlags& flags, uint32_t count);

// Quick calls are not worth a longer wait.
inline constexpr absl::Duration kQuickTimeout = absl::Seconds(10);

// One call with its deadline, cancelled by Ctrl-C while it lives.
class Call {
 public:
  // `timeout` zero means no deadline.
  Call(const Console& console, absl::Duration timeout);

  grpc::ClientContext* context() { return &context_; }

 private:
  grpc::ClientContext context_;
  Interrupts::Scope scope_;
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_CONNECTION_H_
