// The gRPC port: services, credentials, limits.
#ifndef HANMO_SERVER_RPC_RPC_SERVER_H_
#define HANMO_SERVER_RPC_RPC_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "grpcpp/server.h"
#include "server/config.h"
#include "server/rpc/call_context.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/health_service.h"
#include "server/rpc/models_service.h"

namespace hanmo {

class RpcServer {
 public:
  // Listens and answers from now on. `context` and what it points to outlive the server.
  // UNAVAILABLE when the address cannot be listened on, INVALID_ARGUMENT when a TLS file cannot be
  // read.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(const Config& config,
                                                          const CallContext& context);
  ~RpcServer();

  // The address with the port that was bound.
  const std::string& address() const { return address_; }
  HealthService& health() { return health_; }

  // Stops accepting, lets calls finish for `grace`, cancels the rest, waits for their end.
  void Shutdown(absl::Duration grace);

 private:
  explicit RpcServer(const CallContext& context)
      : generation_(context),
        models_(*context.models, *context.metrics),
        health_(*context.models) {}

  GenerationService generation_;
  ModelsService models_;
  HealthService health_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_RPC_SERVER_H_
