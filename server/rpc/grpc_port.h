// One listening gRPC port: credentials, limits, and the services behind it.
#ifndef HANMO_SERVER_RPC_GRPC_PORT_H_
#define HANMO_SERVER_RPC_GRPC_PORT_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/impl/service_type.h"
#include "grpcpp/server.h"
#include "server/config.h"
#include "server/telemetry/call_metrics.h"

namespace hanmo {

class GrpcPort {
 public:
  enum class Security { kAsConfigured, kPlaintext };

  // Listens and answers from now on. `option` is the one that gave the address, for messages; the
  // services outlive the port, and so do `calls`, where its calls are counted (null: nowhere).
  // UNAVAILABLE when the address cannot be listened on, INVALID_ARGUMENT when a TLS file cannot be
  // read.
  static absl::StatusOr<std::unique_ptr<GrpcPort>> Listen(
      const Config& config, absl::string_view option, const std::string& address, Security security,
      const std::vector<grpc::Service*>& services, CallMetrics* calls);
  ~GrpcPort();

  // The address with the port that was bound.
  const std::string& address() const { return address_; }

  // Stops accepting, lets calls finish for `grace`, cancels the rest, waits for their end.
  void Shutdown(absl::Duration grace);

 private:
  GrpcPort() = default;

  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_GRPC_PORT_H_
