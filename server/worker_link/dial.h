// Addresses of running workers: what they may look like, and how to reach them.
#ifndef HANMO_SERVER_WORKER_LINK_DIAL_H_
#define HANMO_SERVER_WORKER_LINK_DIAL_H_

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanmo {

// PEM files for "tls:" addresses. `ca` checks the other end; `certificate` and `key` show this end,
// both or neither (mutual TLS).
struct TlsFiles {
  std::string ca;
  std::string certificate;
  std::string key;
};

// INVALID_ARGUMENT unless `address` is one of
//   unix:/path       a socket whose other end must run as the same user
//   tls:host:port    TLS, mutual when a certificate is given
//   host:port        in clear, on loopback only
absl::Status CheckWorkerAddress(const std::string& address);

// A channel to `address`. For a unix socket the connection is made and its peer checked here:
// UNAVAILABLE when nobody listens, PERMISSION_DENIED for a stranger. For the others gRPC connects
// when the stream is opened. INVALID_ARGUMENT for TLS files that can't be read.
absl::StatusOr<std::shared_ptr<grpc::Channel>> DialWorker(const std::string& address,
                                                          const TlsFiles& tls);

// A channel over a connected socket, which it owns from now on.
std::shared_ptr<grpc::Channel> ChannelOverSocket(int socket);

// OK when the process at the other end of the unix socket runs as the same user as this one.
absl::Status CheckPeerIsSameUser(int socket);

// Whether `host` in "host:port" means this machine.
bool IsLoopback(const std::string& host_port);

}  // namespace hanmo

#endif  // HANMO_SERVER_WORKER_LINK_DIAL_H_
