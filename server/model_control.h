// Which models are in the workers' memory: at the start, and as operators load, swap and unload
// them while the server runs.
//
// A loading of a version has an id of its own and lives as long as somebody holds its ModelRef: the
// table, for new requests, and the calls under way. When the last one lets it go, the batcher
// forgets it and the workers free its memory. So no request ever sees two versions, and none has to
// wait for another's end.
//
//   Load:  read the folder → room in the budget → into every worker → serve it, let the old one go
//   idle:  a model without requests gives its memory to another; its next request loads it again
#ifndef HANMO_SERVER_MODEL_CONTROL_H_
#define HANMO_SERVER_MODEL_CONTROL_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/batcher/batcher.h"
#include "server/config.h"
#include "server/rpc/model_table.h"
#include "server/telemetry/figures.h"
#include "server/telemetry/log.h"
#include "server/worker_link/fleet.h"

namespace hanmo {

// Thread-safe. One thread of its own, on which the steps of all operations run one after another;
// callbacks come from it.
class ModelControl {
 public:
  struct Options {
    std::string repository;
    // Bytes of weights on one worker at most, over all models; 0 sets no limit.
    uint64_t memory = 0;
    // Of texts, prompt included, where a model knows more; 0 sets no limit.
    uint32_t max_context_tokens = 0;
  };
  struct Loaded {
    uint32_t version = 0;
    absl::Duration load_time;
    uint64_t weight_bytes = 0;
  };
  // A running Load. Cancel makes it end soon with CANCELLED; what was served still is.
  class Operation;

  // The arguments outlive the control.
  ModelControl(Options options, ModelTable* models, Batcher* batcher, Figures* figures, Log* log);
  // Ends the thread; operations under way end with UNAVAILABLE. The fleet may be gone.
  ~ModelControl();
  ModelControl(const ModelControl&) = delete;
  ModelControl& operator=(const ModelControl&) = delete;

  // At the start, before Start: reads the repository and serves, of each model, the newest version,
  // or what `load` names ("NAME" or "NAME:VERSION", "*" for all), and what has a label. Returns
  // what the fleet is to begin with; what exceeds the memory is loaded by its first request.
  // INVALID_ARGUMENT names the entry of `load` or `labels` that the repository does not have.
  absl::StatusOr<std::vector<FleetModel>> ServeRepository(
      const std::vector<std::string>& load, const std::vector<VersionLabel>& labels = {});
  // `fleet` is started and outlives the control's use: Stop comes before its end.
  void Start(Fleet* fleet);
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  // Loads a version (0: the newest) of a model and serves it. NOT_FOUND when the repository has no
  // such model or version, FAILED_PRECONDITION with the reason when it can't be loaded,
  // RESOURCE_EXHAUSTED when the memory does not suffice.
  std::shared_ptr<Operation> Load(const std::string& name, uint32_t version,
                                  std::function<void(absl::StatusOr<Loaded>)> done)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Cancel(Operation& operation) ABSL_LOCKS_EXCLUDED(mu_);
  // Takes a version (0: all) out of service; `done` is called with the versions when their memory
  // is free. NOT_FOUND, or FAILED_PRECONDITION while a label points at one of them.
  void Unload(const std::string& name, uint32_t version,
              std::function<void(absl::StatusOr<std::vector<uint32_t>>)> done)
      ABSL_LOCKS_EXCLUDED(mu_);

  // --- What happens elsewhere.

  // The state of a model changed.
  void ModelChanged() ABSL_LOCKS_EXCLUDED(mu_);
  // A worker has a model: now its size is known.
  void ModelLoaded() ABSL_LOCKS_EXCLUDED(mu_);
  void WorkerUp(WorkerId worker) ABSL_LOCKS_EXCLUDED(mu_);
  void WorkerLost(WorkerId worker) ABSL_LOCKS_EXCLUDED(mu_);
  void ModelUnloaded(WorkerId worker, ModelId model) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // Workers that are to free a model, and those that did or died since.
  struct Leaving {
    std::set<WorkerId> asked;
    std::set<WorkerId> gone;
    bool complete = false;  // `asked` is
    bool rests = false;     // it is only out of memory, and may be on its way back by now
  };

  void Post(std::function<void()> task) ABSL_LOCKS_EXCLUDED(mu_);
  void Run() ABSL_LOCKS_EXCLUDED(mu_);

  // All below on the control's thread.
  absl::StatusOr<Loaded> DoLoad(const std::string& name, uint32_t version, Operation& operation);
  absl::StatusOr<std::vector<uint32_t>> Withdraw(const std::string& name, uint32_t version,
                                                 std::vector<ModelId>* ids);
  // Waits until every worker that is up has the model, or one can't have it.
  absl::Status AwaitLoaded(ModelId model, Operation& operation) ABSL_LOCKS_EXCLUDED(mu_);
  // Lets idle models rest until `bytes` more fit.
  absl::Status MakeRoom(uint64_t bytes);
  bool Rest(const ModelRef& model) ABSL_LOCKS_EXCLUDED(mu_);
  void Wake(ModelId model);
  // Nobody holds it any more.
  void Release(ModelId model);
  // Frees it in the workers; true when that is done already, else ModelUnloaded follows.
  bool FreeInWorkers(ModelId model, bool rests) ABSL_LOCKS_EXCLUDED(mu_);
  void Forget(ModelId model);
  uint64_t MemoryUsed();
  // What the model of this folder took when it was loaded last, else what its files suggest.
  uint64_t ExpectedBytes(const std::string& folder) const;
  ModelRef Adopt(Model model);

  const Options options_;
  ModelTable& models_;
  Batcher& batcher_;
  Figures& figures_;
  Log& log_;

  // The control's thread.
  Fleet* fleet_ = nullptr;
  ModelId next_id_ = 0;
  std::map<ModelId, uint64_t> resident_;  // bytes; of what is in the workers or on its way there
  std::map<std::string, uint64_t> measured_;  // bytes, by folder
  std::map<ModelId, std::function<void()>> when_gone_;

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mu_);
  std::set<WorkerId> up_ ABSL_GUARDED_BY(mu_);
  std::map<ModelId, Leaving> leaving_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

// Of the checkpoint's files: about what its weights take in the format that they are stored in.
uint64_t WeightFileBytes(const std::string& folder);

}  // namespace hanmo

#endif  // HANMO_SERVER_MODEL_CONTROL_H_
