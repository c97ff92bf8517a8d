// What the server must know of its own running, whether or not anybody scrapes it: overload,
// learned costs, sums by model. Metrics adds the numbers of Prometheus; without a port for them the
// server has these alone.
#ifndef HANMO_SERVER_TELEMETRY_FIGURES_H_
#define HANMO_SERVER_TELEMETRY_FIGURES_H_

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
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/batcher/observer.h"
#include "server/telemetry/model_totals.h"

namespace hanmo {

class CallMetrics;

// What the front end does for a request; the batcher reports its own phases.
enum class FrontPhase { kTokenize, kFirstPreview, kPictureEncode, kSend };

// Thread-safe; the observer's methods come from the batcher's thread.
class Figures : public BatcherObserver {
 public:
  struct ModelLabel {
    std::string name;
    std::string task;  // "text" or "picture"
  };

  // From now on events of the model may come.
  virtual void AddModel(ModelId model, const ModelLabel& label);
  // None will come any more. Its totals stay: they are those of the name.
  virtual void RemoveModel(ModelId model);

  // A request ended towards the client; nullopt when its model is unknown.
  virtual void RequestDone(std::optional<ModelId> model, absl::StatusCode code,
                           absl::Duration total);
  // The same for who asked.
  virtual void TenantDone(absl::string_view tenant, absl::StatusCode code,
                          absl::Duration device_time) {}
  // A request was refused before the batcher saw it.
  virtual void RefusedInvalid() {}
  virtual void ObservePhase(ModelId model, FrontPhase phase, absl::Duration time);
  virtual void PicturePainted(ModelId model, uint64_t pixels) {}
  virtual void PreviewDropped(ModelId model) {}
  // Before the batcher runs.
  virtual void SetQueueLimit(uint32_t requests) {}

  // Of a name that was added; others are ignored. `state` is one of kModelStates.
  virtual void ModelLoaded(const std::string& name, absl::Duration time) {}
  // Those of names that were never added are counted together.
  virtual void ModelLoadFailed(const std::string& name) {}
  virtual void SetModelState(const std::string& name, absl::string_view state) {}
  // `memory` is that of its device, in bytes.
  virtual void WorkerUp(WorkerId worker, uint64_t memory) {}
  virtual void WorkerLost(WorkerId worker) {}

  // Null: calls are not counted by method and code.
  virtual CallMetrics* calls() { return nullptr; }

  // As last told by the batcher.
  bool overloaded() const { return overloaded_; }
  // `changed` is called after each change of overloaded(), on the batcher's thread. At most once,
  // before the batcher runs.
  void WatchOverload(std::function<void()> changed) { overload_changed_ = std::move(changed); }
  // As last told by the batcher.
  std::vector<StepCosts::Description> Costs(ModelId model) const ABSL_LOCKS_EXCLUDED(mu_);
  // Null for a name that it does not know.
  const ModelTotals* Totals(const std::string& name) const { return FindTotals(name); }

  void OnStarted(ModelId model, absl::Duration queued) override;
  void OnStep(WorkerId worker, const Step& step, const StepResult& result) override;
  void OnCosts(ModelId model, std::vector<StepCosts::Description> costs) override;
  void OnOverload(bool overloaded) override;

 protected:
  // Null for a name that was not added; lives as long as the figures.
  ModelTotals* FindTotals(const std::string& name) const ABSL_LOCKS_EXCLUDED(mu_);
  static void AddPhase(FrontPhase phase, absl::Duration time, ModelTotals* totals);

 private:
  // Of a model that was added and is not removed.
  ModelTotals& TotalsOf(ModelId model) const ABSL_LOCKS_EXCLUDED(mu_);

  std::atomic<bool> overloaded_{false};
  std::function<void()> overload_changed_;  // set before the batcher runs

  mutable absl::Mutex mu_;
  std::map<std::string, std::unique_ptr<ModelTotals>> by_name_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<ModelId, ModelTotals*> by_id_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<ModelId, std::vector<StepCosts::Description>> costs_ ABSL_GUARDED_BY(mu_);
};

inline constexpr absl::string_view kModelStates[] = {"loading", "ready", "recovering",
                                                     "failed",  "idle",  "unloaded"};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_FIGURES_H_
