#include "server/rpc/admin_service.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "server/batcher/clock.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/pending_call.h"
#include "server/rpc/proto_duration.h"
#include "server/rpc/violations.h"

namespace hanmo {
namespace {

using grpc::CallbackServerContext;
using hanmo::v1::DrainResponse;

// How often a drain tells how far it is.
constexpr absl::Duration kProgress = absl::Milliseconds(500);

absl::Status CheckName(const std::string& name) {
  if (name.empty()) return FieldError("name", "is required");
  if (!IsModelName(name)) return FieldError("name", "must be 1 to 128 of [A-Za-z0-9._-]");
  return absl::OkStatus();
}

grpc::ServerUnaryReactor* EndNow(CallbackServerContext* rpc, const absl::Status& status) {
  grpc::ServerUnaryReactor* reactor = rpc->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status, rpc));
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::LoadModel(CallbackServerContext* rpc,
                                                  const hanmo::v1::LoadModelRequest* request,
                                                  hanmo::v1::LoadModelResponse* response) {
  if (auto status = CheckName(request->name()); !status.ok()) return EndNow(rpc, status);
  auto call = PendingCall::Make(rpc);
  grpc::ServerUnaryReactor* const reactor = call.get();
  auto operation = control_.Load(request->name(), request->version(),
                                 [call, response](absl::StatusOr<ModelControl::Loaded> loaded) {
                                   if (loaded.ok()) {
                                     response->set_version(loaded->version);
                                     response->set_weight_bytes(loaded->weight_bytes);
                                     SetDuration(loaded->load_time, response->mutable_load_time());
                                   }
                                   call->End(loaded.status());
                                 });
  call->WhenCancelled([this, operation] { control_.Cancel(*operation); });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::UnloadModel(CallbackServerContext* rpc,
                                                    const hanmo::v1::UnloadModelRequest* request,
                                                    hanmo::v1::UnloadModelResponse* response) {
  if (auto status = CheckName(request->name()); !status.ok()) return EndNow(rpc, status);
  auto call = PendingCall::Make(rpc);
  grpc::ServerUnaryReactor* const reactor = call.get();
  control_.Unload(request->name(), request->version(),
                  [call, response](absl::StatusOr<std::vector<uint32_t>> versions) {
                    if (versions.ok()) {
                      response->mutable_versions()->Add(versions->begin(), versions->end());
                    }
                    call->End(versions.status());
                  });
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::SetLabel(CallbackServerContext* rpc,
                                                 const hanmo::v1::SetLabelRequest* request,
                                                 hanmo::v1::SetLabelResponse*) {
  absl::Status status = CheckName(request->name());
  if (status.ok()) {
    status = models_.SetLabel(request->name(), request->label(), request->version());
  }
  return EndNow(rpc, status);
}

grpc::ServerUnaryReactor* AdminService::RemoveLabel(CallbackServerContext* rpc,
                                                    const hanmo::v1::RemoveLabelRequest* request,
                                                    hanmo::v1::RemoveLabelResponse*) {
  absl::Status status = CheckName(request->name());
  if (status.ok()) status = models_.RemoveLabel(request->name(), request->label());
  return EndNow(rpc, status);
}

// Its thread begins to drain and tells the progress until no call is left or the client is gone.
class AdminService::DrainCall final : public grpc::ServerWriteReactor<DrainResponse> {
 public:
  void Run(Calls& calls, const std::function<void()>& stop_accepting) {
    const absl::Time start = SteadyNow();
    bool alive = Tell(calls.count(), false, SteadyNow() - start);
    stop_accepting();
    bool none = false;
    while (alive && !none) {
      none = calls.AwaitNone(kProgress);
      alive = Tell(none ? 0 : calls.count(), true, SteadyNow() - start);
    }
    Finish(alive ? grpc::Status::OK
                 : grpc::Status(grpc::StatusCode::CANCELLED, "the client is gone"));
  }

  void OnWriteDone(bool ok) override {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    broken_ = broken_ || !ok;
  }
  void OnCancel() override {
    absl::MutexLock lock(&mu_);
    broken_ = true;
  }
  void OnDone() override { delete this; }

 private:
  // False when nobody listens.
  bool Tell(int calls, bool refusing, absl::Duration elapsed) {
    {
      absl::MutexLock lock(&mu_);
      if (broken_) return false;
      writing_ = true;
    }
    progress_.set_calls(static_cast<uint32_t>(calls));
    progress_.set_refusing(refusing);
    SetDuration(elapsed, progress_.mutable_elapsed());
    StartWrite(&progress_);
    absl::MutexLock lock(&mu_);
    const auto written = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !writing_; };
    mu_.Await(absl::Condition(&written));
    return !broken_;
  }

  DrainResponse progress_;  // of the write under way
  absl::Mutex mu_;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;
};

grpc::ServerWriteReactor<DrainResponse>* AdminService::Drain(CallbackServerContext*,
                                                             const hanmo::v1::DrainRequest*) {
  auto* call = new DrainCall;
  absl::MutexLock lock(&mu_);
  drains_.emplace_back([this, call] { call->Run(calls_, stop_accepting_); });
  return call;
}

AdminService::~AdminService() {
  absl::MutexLock lock(&mu_);
  for (std::thread& drain : drains_) drain.join();
}

}  // namespace hanmo
