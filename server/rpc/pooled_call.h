// A unary call that computes for a while: small ones at once, large ones on the tokenize pool.
#ifndef HANMO_SERVER_RPC_POOLED_CALL_H_
#define HANMO_SERVER_RPC_POOLED_CALL_H_

#include <cstddef>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/rpc/call_context.h"
#include "server/rpc/grpc_status.h"

namespace hanmo {

// Owns itself until gRPC is done with it.
class PooledCall final : public grpc::ServerUnaryReactor {
 public:
  // `work` fills the response; it takes about a microsecond for each few of `bytes`.
  static grpc::ServerUnaryReactor* Start(const CallContext& server,
                                         grpc::CallbackServerContext* rpc, size_t bytes,
                                         std::function<absl::Status()> work) {
    // As for generation: below this another thread costs more than it relieves.
    constexpr size_t kInlineBytes = 2048;
    auto* call = new PooledCall(server);
    if (bytes <= kInlineBytes) {
      call->Finish(ToGrpcStatus(work(), rpc));
    } else if (!server.tokenize_pool->Submit(bytes, [call, rpc, work = std::move(work)] {
                 call->Finish(ToGrpcStatus(work(), rpc));
               })) {
      call->Finish(ToGrpcStatus(
          absl::ResourceExhaustedError("too many long texts are waiting to be tokenized"), rpc));
    }
    return call;
  }

  void OnDone() override {
    server_.calls->End();
    delete this;
  }

 private:
  explicit PooledCall(const CallContext& server) : server_(server) { server_.calls->Begin(); }

  const CallContext& server_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_POOLED_CALL_H_
