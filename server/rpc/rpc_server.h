// What clients reach: the gRPC port with its services, and one for health checks alone.
#ifndef HANMO_SERVER_RPC_RPC_SERVER_H_
#define HANMO_SERVER_RPC_RPC_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config.h"
#include "server/open_inference/open_inference_service.h"
#include "server/rpc/call_context.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/grpc_port.h"
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
  const std::string& address() const { return port_->address(); }
  // Empty without a port for health alone.
  std::string health_address() const {
    return health_port_ == nullptr ? "" : health_port_->address();
  }

  const HealthService& health() const { return health_; }

  // On both ports; see HealthService.
  void NotifyHealth();
  void DrainHealth();
  void EndHealthWatches();

  // Stops accepting, lets calls finish for `grace`, cancels the rest, waits for their end.
  void Shutdown(absl::Duration grace);

 private:
  explicit RpcServer(const CallContext& context)
      : generation_(context),
        models_(*context.models, *context.figures),
        health_(*context.models, *context.figures),
        plain_health_(*context.models, *context.figures),
        open_inference_(context, health_) {}

  GenerationService generation_;
  ModelsService models_;
  HealthService health_, plain_health_;
  OpenInferenceService open_inference_;
  std::unique_ptr<GrpcPort> port_, health_port_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_RPC_SERVER_H_
