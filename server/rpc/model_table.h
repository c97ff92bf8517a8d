// The models as requests see them: what the repository says, the tokenizer, and the state that the
// workers report. The set of models is fixed at start, so finding one takes no lock.
#ifndef HANMO_SERVER_RPC_MODEL_TABLE_H_
#define HANMO_SERVER_RPC_MODEL_TABLE_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "server/repository.h"
#include "server/text/chat_template.h"
#include "server/text/tokenizer.h"
#include "server/worker_link/loaded_model.h"

namespace hanmo {

enum class ModelPhase {
  kLoading,
  kReady,       // at least one worker serves it
  kRecovering,  // its workers are being restarted
  kFailed,
};

// Fixed at start.
struct Model {
  ModelSpec spec;
  // Null where the folder has none: the model then takes and gives token ids only.
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template;
};

// A copy of what changes.
struct ModelStatus {
  ModelPhase phase = ModelPhase::kLoading;
  std::string detail;  // of a failed model
  LoadedModel loaded;  // as the last worker reported
  uint32_t workers = 0;
};

// Reads the tokenizer and the chat template of `spec`'s folder. What cannot be read is in the
// returned model's spec.status.
Model OpenModel(ModelSpec spec);

// Thread-safe.
class ModelTable {
 public:
  // models[i].spec.id is i. A model whose spec.status is not OK starts as failed.
  explicit ModelTable(std::vector<Model> models);
  ModelTable(const ModelTable&) = delete;
  ModelTable& operator=(const ModelTable&) = delete;

  const std::vector<Model>& models() const { return models_; }
  // Null when there is none. Valid as long as the table.
  const Model* Find(absl::string_view name) const;

  ModelPhase phase(ModelId model) const;
  ModelStatus Status(ModelId model) const;
  // Every model that did not fail has been loaded at least once, and one is ready now.
  bool ready() const;

  void SetLoaded(WorkerId worker, ModelId model, const LoadedModel& loaded);
  // `worker` cannot have the model; it fails once no worker has it.
  void SetFailed(WorkerId worker, ModelId model, const absl::Status& status);
  void RemoveWorker(WorkerId worker);

  // `changed` is called after each change of a phase, from the thread that made it. At most once,
  // before changes begin.
  void Watch(std::function<void()> changed) { changed_ = std::move(changed); }

 private:
  struct State {
    ModelPhase phase = ModelPhase::kLoading;
    std::string detail;
    LoadedModel loaded;
    std::vector<WorkerId> workers;
  };

  void Notify() const;

  const std::vector<Model> models_;
  absl::flat_hash_map<std::string, const Model*> by_name_;  // set at construction
  std::function<void()> changed_;                           // set before changes begin

  mutable absl::Mutex mu_;
  std::vector<State> states_ ABSL_GUARDED_BY(mu_);  // by ModelId
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_MODEL_TABLE_H_
