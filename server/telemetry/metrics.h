// The numbers that the server exports to Prometheus. All time series of a model are made before its
// first event, so that counting one allocates nothing. Versions of a model share its series.
#ifndef HANMO_SERVER_TELEMETRY_METRICS_H_
#define HANMO_SERVER_TELEMETRY_METRICS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "prometheus/registry.h"
#include "server/telemetry/call_metrics.h"
#include "server/telemetry/figures.h"
#include "server/telemetry/tenant_metrics.h"

namespace hanmo {

// Thread-safe; the observer's methods come from the batcher's thread.
class Metrics final : public Figures {
 public:
  // models[i] is the model with id i; `workers` the number of workers.
  Metrics(const std::vector<ModelLabel>& models, uint32_t workers, const std::string& version);
  Metrics(uint32_t workers, const std::string& version) : Metrics({}, workers, version) {}
  ~Metrics() override;

  // What the exposer serves.
  const std::shared_ptr<prometheus::Registry>& registry() const { return registry_; }
  TenantMetrics& tenants() { return *tenants_; }

  void AddModel(ModelId model, const ModelLabel& label) override ABSL_LOCKS_EXCLUDED(mu_);
  void RemoveModel(ModelId model) override ABSL_LOCKS_EXCLUDED(mu_);
  void RequestDone(std::optional<ModelId> model, absl::StatusCode code,
                   absl::Duration total) override;
  void TenantDone(absl::string_view tenant, absl::StatusCode code,
                  absl::Duration device_time) override;
  void RefusedInvalid() override;
  void ObservePhase(ModelId model, FrontPhase phase, absl::Duration time) override;
  void PicturePainted(ModelId model, uint64_t pixels) override;
  void PreviewDropped(ModelId model) override;
  void SetQueueLimit(uint32_t requests) override;
  void ModelLoaded(const std::string& name, absl::Duration time) override;
  void ModelLoadFailed(const std::string& name) override;
  void SetModelState(const std::string& name, absl::string_view state) override;
  void WorkerUp(WorkerId worker, uint64_t memory) override;
  void WorkerLost(WorkerId worker) override;
  CallMetrics* calls() override { return calls_.get(); }

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
  void OnCosts(ModelId model, std::vector<StepCosts::Description> costs) override;
  void OnOverload(bool overloaded) override;
  void OnTick(absl::Duration time) override;

 private:
  struct Families;
  struct ModelSeries;
  struct WorkerSeries;
  // What the gauges of a model's name have of one version.
  struct Shown {
    uint32_t waiting = 0, running = 0;
    std::vector<uint32_t> pages_used, pages_total;  // by WorkerId
    std::set<prometheus::Labels> costs;
  };
  struct CostGauges;

  // Of a model that was added and is not removed.
  const ModelSeries& Series(ModelId model) const ABSL_LOCKS_EXCLUDED(mu_);
  // The same for the observer's methods, without a lock where the model is that of the last event.
  const ModelSeries& Observed(ModelId model) ABSL_LOCKS_EXCLUDED(mu_);
  const ModelSeries* SeriesOf(const std::string& name) const ABSL_LOCKS_EXCLUDED(mu_);
  std::unique_ptr<ModelSeries> MakeSeries(const ModelLabel& label);
  void ShowLoad(const ModelSeries& series, uint32_t waiting, uint32_t running, Shown* shown);
  void ShowPages(const ModelSeries& series, WorkerId worker, uint32_t used, uint32_t total,
                 Shown* shown);
  CostGauges CostGaugesOf(const prometheus::Labels& step);
  void SetCosts(ModelId model, const std::string& name,
                absl::Span<const StepCosts::Description> costs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Instead of those shown so far.
  void ShowCosts(ModelId model, std::set<prometheus::Labels> costs)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::shared_ptr<prometheus::Registry> registry_;
  const std::unique_ptr<Families> families_;
  const std::unique_ptr<CallMetrics> calls_;
  const std::unique_ptr<TenantMetrics> tenants_;
  std::vector<WorkerSeries> workers_;  // by WorkerId

  // Of the last event that the batcher told. Series live as long as the metrics.
  std::optional<ModelId> last_model_;
  const ModelSeries* last_series_ = nullptr;

  mutable absl::Mutex mu_;
  std::map<std::string, std::unique_ptr<ModelSeries>> by_name_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<ModelId, const ModelSeries*> by_id_ ABSL_GUARDED_BY(mu_);
  std::map<ModelId, Shown> shown_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_METRICS_H_
