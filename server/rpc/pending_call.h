// A unary call that ends elsewhere, later, and may be cancelled meanwhile.
#ifndef HANMO_SERVER_RPC_PENDING_CALL_H_
#define HANMO_SERVER_RPC_PENDING_CALL_H_

#include <functional>
#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "server/rpc/grpc_status.h"

namespace hanmo {

// Thread-safe. gRPC keeps context, request and response until OnDone; End is called once.
class PendingCall final : public grpc::ServerUnaryReactor {
 public:
  explicit PendingCall(grpc::CallbackServerContext* rpc) : rpc_(rpc) {}

  void End(const absl::Status& status) { Finish(ToGrpcStatus(status, rpc_)); }
  void WhenCancelled(std::function<void()> cancel) ABSL_LOCKS_EXCLUDED(mu_) {
    bool cancelled = false;
    {
      absl::MutexLock lock(&mu_);
      cancelled = cancelled_;
      if (!cancelled) cancel_ = std::move(cancel);
    }
    if (cancelled) cancel();
  }

  void OnCancel() override ABSL_LOCKS_EXCLUDED(mu_) {
    std::function<void()> cancel;
    {
      absl::MutexLock lock(&mu_);
      cancelled_ = true;
      cancel = std::move(cancel_);
    }
    if (cancel) cancel();
  }
  void OnDone() override { self_.reset(); }

  static std::shared_ptr<PendingCall> Make(grpc::CallbackServerContext* rpc) {
    auto call = std::make_shared<PendingCall>(rpc);
    call->self_ = call;
    return call;
  }

 private:
  grpc::CallbackServerContext* const rpc_;
  std::shared_ptr<PendingCall> self_;  // until OnDone
  absl::Mutex mu_;
  bool cancelled_ ABSL_GUARDED_BY(mu_) = false;
  std::function<void()> cancel_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_PENDING_CALL_H_
