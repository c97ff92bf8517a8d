// The numbers that the server exports to Prometheus. All time series of a model are made before its
// first event, so that counting one allocates nothing. Versions of a model share its series.
#ifndef HANMO_SERVER_TELEMETRY_METRICS_H_
#define HANMO_SERVER_TELEMETRY_METRICS_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "prometheus/registry.h"
#include "server/batcher/observer.h"
#include "server/telemetry/call_metrics.h"
#include "server/telemetry/model_totals.h"
#include "server/telemetry/tenant_metrics.h"

namespace hanmo {

// What the front end does for a request; the batcher reports its own phases.
enum class FrontPhase { kTokenize, kFirstPreview, kPictureEncode, kSend };

// Thread-safe; the observer's methods come from the batcher's thread.
class Metrics : public BatcherObserver {
 public:
  struct ModelLabel {
    std::string name;
    std::string task;  // "text" or "picture"
  };

  // models[i] is the model with id i; `workers` the number of workers.
  Metrics(const std::vector<ModelLabel>& models, uint32_t workers, const std::string& version);
  Metrics(uint32_t workers, const std::string& version) : Metrics({}, workers, version) {}
  ~Metrics() override;

  // From now on events of the model may come.
  void AddModel(ModelId model, const ModelLabel& label) ABSL_LOCKS_EXCLUDED(models_mu_);
  // None will come any more. Its time series stay: they are those of the name.
  void RemoveModel(ModelId model) ABSL_LOCKS_EXCLUDED(models_mu_, mu_);

  // What the exposer serves.
  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }

  // A request ended towards the client; nullopt when its model is unknown.
  void RequestDone(std::optional<ModelId> model, absl::StatusCode code, absl::Duration total);
  // A request was refused before the batcher saw it.
  void RefusedInvalid();
  void ObservePhase(ModelId model, FrontPhase phase, absl::Duration time);

  void PicturePainted(ModelId model, uint64_t pixels);
  void PreviewDropped(ModelId model);
  CallMetrics& calls() { return *calls_; }
  TenantMetrics& tenants() { return *tenants_; }
  // Before the batcher runs.
  void SetQueueLimit(uint32_t requests);
  // As last told by the batcher.
  bool overloaded() const { return overloaded_; }
  // `changed` is called after each change of overloaded(), on the batcher's thread. At most once,
  // before the batcher runs.
  void WatchOverload(std::function<void()> changed) { overload_changed_ = std::move(changed); }

  // As last told by the batcher.
  std::vector<StepCosts::Description> Costs(ModelId model) const ABSL_LOCKS_EXCLUDED(mu_);
  // Null for a name that it does not know.
  const ModelTotals* Totals(const std::string& name) const;

  // Of a name that was added; others are ignored. `state` is one of kModelStates.
  void ModelLoaded(const std::string& name, absl::Duration time) ABSL_LOCKS_EXCLUDED(models_mu_);
  // Those of names that were never added are counted together.
  void ModelLoadFailed(const std::string& name) ABSL_LOCKS_EXCLUDED(models_mu_);
  void SetModelState(const std::string& name, absl::string_view state)
      ABSL_LOCKS_EXCLUDED(models_mu_);
  // `memory` is that of its device, in bytes.
  void WorkerUp(WorkerId worker, uint64_t memory);
  void WorkerLost(WorkerId worker);

  void OnRejected(ModelId model, Rejection reason) override;
  void OnStarted(ModelId model, absl::Duration queued) override;
  void OnStep(WorkerId worker, const Step& step, const StepResult& result) override;
  void OnPrefill(ModelId model, absl::Duration time, uint32_t tokens) override;
  void OnPrefixHit(ModelId model, uint32_t tokens) override;
  void OnFirstToken(ModelId model, absl::Duration since_arrival) override;
  void OnInterToken(ModelId model, absl::Duration gap) override;
  void OnTextEnd(ModelId model, const TextEnd& end) override;
  void OnPreempted(ModelId model) override;
  void OnCancelled(ModelId model) override;
  void OnDeadlineMissed(ModelId model, bool was_running) override;
  void OnDone(ModelId model, absl::StatusCode code, const Usage& usage,
              absl::Duration total) override;
  void OnLoad(ModelId model, uint32_t waiting, uint32_t running) override;
  void OnPages(WorkerId worker, ModelId model, uint32_t used, uint32_t total) override;
  void OnCosts(ModelId model, std::vector<StepCosts::Description> costs) override
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnOverload(bool overloaded) override;
  void OnTick(absl::Duration time) override;

 private:
  struct Families;
  struct ModelSeries;
  struct WorkerSeries;

  // Of a model that was added and is not removed.
  const ModelSeries& Series(ModelId model) const ABSL_LOCKS_EXCLUDED(models_mu_);
  const ModelSeries* SeriesOf(const std::string& name) const ABSL_LOCKS_EXCLUDED(models_mu_);
  std::unique_ptr<ModelSeries> MakeSeries(const ModelLabel& label);

  const std::shared_ptr<prometheus::Registry> registry_;
  const std::unique_ptr<Families> families_;
  const std::unique_ptr<CallMetrics> calls_;
  const std::unique_ptr<TenantMetrics> tenants_;
  std::vector<WorkerSeries> workers_;  // by WorkerId

  std::atomic<bool> overloaded_{false};
  std::function<void()> overload_changed_;  // set before the batcher runs

  mutable absl::Mutex models_mu_;
  std::map<std::string, std::unique_ptr<ModelSeries>> by_name_ ABSL_GUARDED_BY(models_mu_);
  absl::flat_hash_map<ModelId, const ModelSeries*> by_id_ ABSL_GUARDED_BY(models_mu_);

  mutable absl::Mutex mu_;
  absl::flat_hash_map<ModelId, std::vector<StepCosts::Description>> costs_ ABSL_GUARDED_BY(mu_);
};

inline constexpr absl::string_view kModelStates[] = {"loading", "ready", "recovering",
                                                     "failed",  "idle",  "unloaded"};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_METRICS_H_
