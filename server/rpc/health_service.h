// grpc.health.v1, from the state of the models: nothing is reported that is not so right now.
//
//   ""                      SERVING once every model that can be loaded has been, and one is ready
//   "hanmo.v1.Generation"   the same
//   "inference.GRPCInferenceService"   the same
//   "hanmo.v1.Models"       SERVING as soon as the server answers
//   a model's name          SERVING while a worker has it ready, or would load it for a request
//   "readiness"             as "", and the queue is not full: for who may choose another server
//   "liveness"              SERVING as long as the server answers, also while it drains
//
// All but the last turn NOT_SERVING when the server drains.
#ifndef HANMO_SERVER_RPC_HEALTH_SERVICE_H_
#define HANMO_SERVER_RPC_HEALTH_SERVICE_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "server/rpc/model_table.h"
#include "server/telemetry/figures.h"

namespace hanmo {

class HealthService final : public grpc::health::v1::Health::CallbackService {
 public:
  using State = grpc::health::v1::HealthCheckResponse::ServingStatus;

  // The arguments outlive the service.
  HealthService(const ModelTable& models, const Figures& figures)
      : models_(models), figures_(figures) {}
  ~HealthService() override;

  // SERVICE_UNKNOWN when there is no such service or model. Thread-safe, as is all below.
  State StateOf(const std::string& service) const;

  // Something changed: tells the watchers whose state did.
  void Notify();
  // Everything is NOT_SERVING from now on.
  void Drain();
  // Ends all Watch calls, which would otherwise outlast the server; later ones end at once.
  void EndWatches();

  grpc::ServerUnaryReactor* Check(grpc::CallbackServerContext* rpc,
                                  const grpc::health::v1::HealthCheckRequest* request,
                                  grpc::health::v1::HealthCheckResponse* response) override;
  grpc::ServerWriteReactor<grpc::health::v1::HealthCheckResponse>* Watch(
      grpc::CallbackServerContext* rpc,
      const grpc::health::v1::HealthCheckRequest* request) override;

 private:
  class Watcher;

  std::vector<std::shared_ptr<Watcher>> Watchers() ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(const Watcher* watcher) ABSL_LOCKS_EXCLUDED(mu_);

  const ModelTable& models_;
  const Figures& figures_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> ended_{false};
  absl::Mutex mu_;
  std::vector<std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_HEALTH_SERVICE_H_
