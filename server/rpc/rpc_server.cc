#include "server/rpc/rpc_server.h"

#include <utility>

namespace hanmo {

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(const Config& config,
                                                            const CallContext& context) {
  std::unique_ptr<RpcServer> server(new RpcServer(context));
  auto port = GrpcPort::Listen(
      config, "listen", config.listen, GrpcPort::Security::kAsConfigured,
      {&server->generation_, &server->models_, &server->health_, &server->open_inference_},
      context.figures->calls());
  if (!port.ok()) return port.status();
  server->port_ = *std::move(port);
  if (config.health_listen.empty()) return server;
  auto health = GrpcPort::Listen(config, "health-listen", config.health_listen,
                                 GrpcPort::Security::kPlaintext, {&server->plain_health_},
                                 context.figures->calls());
  if (!health.ok()) return health.status();
  server->health_port_ = *std::move(health);
  return server;
}

RpcServer::~RpcServer() { Shutdown(absl::ZeroDuration()); }

void RpcServer::NotifyHealth() {
  health_.Notify();
  plain_health_.Notify();
}

void RpcServer::DrainHealth() {
  health_.Drain();
  plain_health_.Drain();
}

void RpcServer::EndHealthWatches() {
  health_.EndWatches();
  plain_health_.EndWatches();
}

void RpcServer::Shutdown(absl::Duration grace) {
  EndHealthWatches();
  open_inference_.EndStreams();
  if (port_ != nullptr) port_->Shutdown(grace);
  // Whoever looks for life finds it to the end.
  if (health_port_ != nullptr) health_port_->Shutdown(absl::ZeroDuration());
}

}  // namespace hanmo
