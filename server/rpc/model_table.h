// The models as requests see them: what the repository says, the tokenizer, and the state that the
// workers report. A request finds a version of a model by name and keeps it to its end, also while
// another takes its place.
#ifndef HANMO_SERVER_RPC_MODEL_TABLE_H_
#define HANMO_SERVER_RPC_MODEL_TABLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "server/repository.h"
#include "server/rpc/model.h"
#include "server/worker_link/loaded_model.h"

namespace hanmo {

enum class ModelPhase {
  kLoading,
  kReady,       // at least one worker serves it
  kRecovering,  // its workers are being restarted
  kFailed,
  kIdle,      // it gave its memory to others; the next request loads it again
  kUnloaded,  // of a version that is in the repository only
};

// A copy of what changes.
struct ModelStatus {
  std::string name;
  uint32_t version = 0;
  ModelPhase phase = ModelPhase::kLoading;
  std::string detail;               // of a failed model
  LoadedModel loaded;               // as the last worker reported
  std::vector<WorkerId> workers;    // that have it
  std::vector<WorkerId> failed_on;  // that can't have it
};

// A model's versions, for people.
struct ModelListing {
  struct Version {
    ModelSpec spec;
    ModelPhase phase = ModelPhase::kUnloaded;
    std::vector<std::string> labels;
  };
  std::string name;
  std::vector<Version> versions;  // by number
  uint32_t chosen = 0;  // the version that requests get which name none; 0: none is loaded
};

// 1 to 64 of [A-Za-z0-9._-], beginning with a letter.
bool IsVersionLabel(absl::string_view label);

// Thread-safe.
class ModelTable {
 public:
  ModelTable();
  // With these models, all of them served; models[i].spec.id is i.
  explicit ModelTable(std::vector<Model> models);
  ~ModelTable();
  ModelTable(const ModelTable&) = delete;
  ModelTable& operator=(const ModelTable&) = delete;

  // --- What is there.

  // The model that requests for `name` get. `version` is a number, a label, or empty: then it is
  // the version labelled "stable", else the newest that is ready, else the newest. Null when there
  // is none.
  ModelRef Find(absl::string_view name, absl::string_view version = "") const;
  // Whether the repository had a model of this name, loaded or not.
  bool Knows(absl::string_view name) const;
  std::vector<ModelListing> List() const;
  // Those that point at this version.
  std::vector<std::string> Labels(const ModelSpec& spec) const;
  // Those that requests can find.
  std::vector<ModelRef> Served() const;

  // kUnloaded for an id that is gone.
  ModelPhase phase(ModelId model) const;
  ModelStatus Status(ModelId model) const;
  // Every model served that did not fail has been loaded at least once, and one is ready now.
  bool ready() const;

  // --- What changes the set of models (server/model_control.h).

  // From now on the id has a state. Requests do not find it yet.
  ModelRef Add(Model model);
  // Forgets the state of an id that nobody holds.
  void Remove(ModelId model);
  // Requests for this version get `model` from now on.
  void Serve(const ModelRef& model);
  // They find no such version from now on. FAILED_PRECONDITION while it has a label, NOT_FOUND when
  // it is not served.
  absl::Status Withdraw(const std::string& name, uint32_t version);
  // A label only points at a version that is ready; FAILED_PRECONDITION otherwise. It may have
  // pointed at another one before.
  absl::Status SetLabel(const std::string& name, const std::string& label, uint32_t version);
  // At the start: of a version that is served, be it ready, loading, idle or failed. Requests that
  // follow the label meet that one, and never another in its place.
  void BeginWithLabel(const std::string& name, const std::string& label, uint32_t version);
  absl::Status RemoveLabel(const std::string& name, const std::string& label);
  // What the repository has now of a model; `versions` may be empty.
  void SetKnown(const std::string& name, const std::vector<ModelSpec>& versions);
  // `unused` is called with the id of each model that nobody holds any more, on the thread that let
  // it go, until the table is gone.
  void OnUnused(std::function<void(ModelId)> unused);

  // --- What the workers report.

  void SetLoaded(WorkerId worker, ModelId model, const LoadedModel& loaded);
  // `worker` cannot have the model; it fails once no worker has it.
  void SetFailed(WorkerId worker, ModelId model, const absl::Status& status);
  void RemoveWorker(WorkerId worker);
  // It has left all workers until it is wanted again.
  void SetIdle(ModelId model);
  void SetLoading(ModelId model);

  // `changed` is called after each change, from the thread that made it. At most once, before
  // changes begin.
  void Watch(std::function<void()> changed) { changed_ = std::move(changed); }

 private:
  struct Name {
    std::map<uint32_t, ModelRef> served;
    std::map<uint32_t, ModelSpec> known;
    std::map<std::string, uint32_t> labels;
  };
  class Unused;

  const Name* FindName(absl::string_view name) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  ModelPhase PhaseOf(ModelId model) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  // The version for requests that name none; 0 when none is served.
  uint32_t Chosen(const Name& name) const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  void Notify() const;

  const std::shared_ptr<Unused> unused_;
  std::function<void()> changed_;  // set before changes begin

  mutable absl::Mutex mu_;
  absl::flat_hash_map<ModelId, ModelStatus> states_ ABSL_GUARDED_BY(mu_);
  std::map<std::string, Name, std::less<>> names_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_MODEL_TABLE_H_
