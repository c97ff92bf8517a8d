// The numbers that the server exports to Prometheus. All time series of a model are made at start,
// so that counting an event takes no look-up and allocates nothing.
#ifndef HANMO_SERVER_TELEMETRY_METRICS_H_
#define HANMO_SERVER_TELEMETRY_METRICS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "prometheus/registry.h"
#include "server/batcher/observer.h"

namespace hanmo {

// What the front end does for a request; the batcher reports its own phases.
enum class FrontPhase { kTokenize, kPictureEncode, kSend };

// Thread-safe; the observer's methods come from the batcher's thread.
class Metrics : public BatcherObserver {
 public:
  struct ModelLabel {
    std::string name;
    std::string task;  // "text" or "picture"
  };

  // models[i] is the model with id i; `workers` the number of workers.
  Metrics(const std::vector<ModelLabel>& models, uint32_t workers, const std::string& version);
  ~Metrics() override;

  // What the exposer serves.
  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

  // A request ended towards the client; nullopt when its model is unknown.
  void RequestDone(std::optional<ModelId> model, absl::StatusCode code, absl::Duration total);
  // A request was refused before the batcher saw it.
  void RefusedInvalid();
  void ObservePhase(ModelId model, FrontPhase phase, absl::Duration time);

  void PreviewDropped(ModelId model);
  // As last told by the batcher.
  std::vector<StepCosts::Description> Costs(ModelId model) const ABSL_LOCKS_EXCLUDED(mu_);

  void ModelLoaded(ModelId model, absl::Duration time);
  // `state` is one of kModelStates.
  void SetModelState(ModelId model, absl::string_view state);
  void WorkerUp(WorkerId worker);
  void WorkerLost(WorkerId worker);

  void OnRejected(ModelId model, Rejection reason) override;
  void OnStarted(ModelId model, absl::Duration queued) override;
  void OnStep(WorkerId worker, const Step& step, const StepResult& result) override;
  void OnPrefill(ModelId model, absl::Duration time, uint32_t tokens) override;
  void OnPrefixHit(ModelId model, uint32_t tokens) override;
  void OnFirstToken(ModelId model, absl::Duration since_arrival) override;
  void OnInterToken(ModelId model, absl::Duration gap) override;
  void OnPreempted(ModelId model) override;
  void OnCancelled(ModelId model) override;
  void OnDeadlineMissed(ModelId model, bool was_running) override;
  void OnDone(ModelId model, absl::StatusCode code, const Usage& usage,
              absl::Duration total) override;
  void OnLoad(ModelId model, uint32_t waiting, uint32_t running) override;
  void OnPages(WorkerId worker, ModelId model, uint32_t used, uint32_t total) override;
  void OnCosts(ModelId model, std::vector<StepCosts::Description> costs) override
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnTick(absl::Duration time) override;

 private:
  struct Families;
  struct ModelSeries;
  struct WorkerSeries;

  const std::shared_ptr<prometheus::Registry> registry_;
  const std::unique_ptr<Families> families_;
  std::vector<ModelSeries> models_;    // by ModelId
  std::vector<WorkerSeries> workers_;  // by WorkerId

  mutable absl::Mutex mu_;
  std::vector<std::vector<StepCosts::Description>> costs_ ABSL_GUARDED_BY(mu_);  // by ModelId
};

inline constexpr absl::string_view kModelStates[] = {"loading", "ready", "recovering", "failed"};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_METRICS_H_
