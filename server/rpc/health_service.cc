#include "server/rpc/health_service.h"

#include <optional>
#include <utility>

#include "absl/strings/string_view.h"
#include "grpcpp/support/server_callback.h"

namespace hanmo {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

// One Watch call. It always writes the newest state: changes that come during a write are one.
class HealthService::Watcher final : public grpc::ServerWriteReactor<HealthCheckResponse>,
                                     public std::enable_shared_from_this<Watcher> {
 public:
  Watcher(HealthService* service, std::string name) : service_(service), name_(std::move(name)) {}

  // Writes the state if it is not the one written last.
  void Refresh() ABSL_LOCKS_EXCLUDED(mu_) {
    {
      absl::MutexLock lock(&mu_);
      const State state = service_->StateOf(name_);
      if (writing_ || ended_ || last_ == state) return;
      last_ = state;
      response_.set_status(state);
      writing_ = true;
    }
    StartWrite(&response_);
  }

  void End() ABSL_LOCKS_EXCLUDED(mu_) {
    {
      absl::MutexLock lock(&mu_);
      if (ended_) return;
      ended_ = true;
      if (writing_) return;  // OnWriteDone finishes
    }
    Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down"));
  }

  void OnWriteDone(bool ok) override ABSL_LOCKS_EXCLUDED(mu_) {
    bool finish = false;
    {
      absl::MutexLock lock(&mu_);
      writing_ = false;
      finish = ended_;
    }
    if (finish) {
      Finish(grpc::Status(grpc::StatusCode::UNAVAILABLE, "the server is shutting down"));
    } else if (ok) {
      Refresh();
    } else {
      End();
    }
  }

  void OnCancel() override { End(); }
  void OnDone() override { service_->Remove(this); }

 private:
  HealthService* const service_;
  const std::string name_;
  HealthCheckResponse response_;  // of the write under way

  absl::Mutex mu_;
  std::optional<State> last_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

HealthService::~HealthService() = default;

HealthService::State HealthService::StateOf(const std::string& service) const {
  const auto serving = [this](bool ready) {
    return ready && !draining_ ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
  };
  if (service.empty() || service == "hanmo.v1.Generation" ||
      service == "inference.GRPCInferenceService") {
    return serving(models_.ready());
  }
  if (service == "readiness") return serving(models_.ready() && !figures_.overloaded());
  if (service == "hanmo.v1.Models") return serving(true);
  if (service == "liveness") return HealthCheckResponse::SERVING;
  const ModelRef model = models_.Find(service);
  if (model == nullptr) {
    return models_.Knows(service) ? HealthCheckResponse::NOT_SERVING
                                  : HealthCheckResponse::SERVICE_UNKNOWN;
  }
  const ModelPhase phase = models_.phase(model->spec.id);
  return serving(phase == ModelPhase::kReady || phase == ModelPhase::kIdle);
}

void HealthService::Notify() {
  for (const auto& watcher : Watchers()) watcher->Refresh();
}

void HealthService::Drain() {
  draining_ = true;
  Notify();
}

void HealthService::EndWatches() {
  ended_ = true;
  for (const auto& watcher : Watchers()) watcher->End();
}

std::vector<std::shared_ptr<HealthService::Watcher>> HealthService::Watchers() {
  absl::MutexLock lock(&mu_);
  return watchers_;
}

void HealthService::Remove(const Watcher* watcher) {
  absl::MutexLock lock(&mu_);
  std::erase_if(watchers_, [watcher](const auto& entry) { return entry.get() == watcher; });
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* rpc,
                                               const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  const State state = StateOf(request->service());
  grpc::ServerUnaryReactor* reactor = rpc->DefaultReactor();
  if (state == HealthCheckResponse::SERVICE_UNKNOWN) {
    reactor->Finish(grpc::Status(grpc::StatusCode::NOT_FOUND, "service: unknown"));
  } else {
    response->set_status(state);
    reactor->Finish(grpc::Status::OK);
  }
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext*, const HealthCheckRequest* request) {
  auto watcher = std::make_shared<Watcher>(this, request->service());
  {
    absl::MutexLock lock(&mu_);
    watchers_.push_back(watcher);
  }
  watcher->Refresh();
  if (ended_) watcher->End();
  return watcher.get();
}

}  // namespace hanmo
