// Counts every call of a port, whichever service and reactor it is for.
#ifndef HANMO_SERVER_RPC_CALL_COUNTER_H_
#define HANMO_SERVER_RPC_CALL_COUNTER_H_

#include "grpcpp/support/server_interceptor.h"
#include "server/telemetry/call_metrics.h"

namespace hanmo {

// Calls of methods that do not exist are counted together: clients choose those names.
class CallCounterFactory final : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  // `calls` outlives the server.
  explicit CallCounterFactory(CallMetrics* calls) : calls_(*calls) {}

  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* call) override;

 private:
  CallMetrics& calls_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_CALL_COUNTER_H_
