#include "server/rpc/model_table.h"

#include <algorithm>
#include <filesystem>
#include <utility>

namespace hanmo {

Model OpenModel(ModelSpec spec) {
  Model model;
  model.spec = std::move(spec);
  if (!model.spec.status.ok()) return model;
  const bool picture = model.spec.kind == ModelKind::kPicture;
  std::filesystem::path folder = model.spec.path;
  if (picture) folder /= "tokenizer";
  auto tokenizer = Tokenizer::Load(folder, picture ? "" : "GPT2Tokenizer");
  if (!tokenizer.ok()) {
    // A text model serves token ids without one; a picture cannot be asked for without words.
    if (picture || !absl::IsNotFound(tokenizer.status())) model.spec.status = tokenizer.status();
    return model;
  }
  model.tokenizer = *std::move(tokenizer);
  auto chat_template = ChatTemplate::Load(folder, *model.tokenizer);
  if (chat_template.ok()) {
    model.chat_template = *std::move(chat_template);
  } else if (!absl::IsNotFound(chat_template.status())) {
    model.spec.status = chat_template.status();
  }
  return model;
}

ModelTable::ModelTable(std::vector<Model> models)
    : models_(std::move(models)), states_(models_.size()) {
  for (size_t i = 0; i < models_.size(); ++i) {
    by_name_[models_[i].spec.name] = &models_[i];
    if (models_[i].spec.status.ok()) continue;
    absl::MutexLock lock(&mu_);
    states_[i].phase = ModelPhase::kFailed;
    states_[i].detail = std::string(models_[i].spec.status.message());
  }
}

const Model* ModelTable::Find(absl::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : found->second;
}

ModelPhase ModelTable::phase(ModelId model) const {
  absl::MutexLock lock(&mu_);
  return states_.at(model).phase;
}

ModelStatus ModelTable::Status(ModelId model) const {
  absl::MutexLock lock(&mu_);
  const State& state = states_.at(model);
  return {state.phase, state.detail, state.loaded, static_cast<uint32_t>(state.workers.size())};
}

bool ModelTable::ready() const {
  absl::MutexLock lock(&mu_);
  bool any_ready = false;
  for (const State& state : states_) {
    if (state.phase == ModelPhase::kLoading) return false;
    any_ready = any_ready || state.phase == ModelPhase::kReady;
  }
  return any_ready;
}

void ModelTable::SetLoaded(WorkerId worker, ModelId model, const LoadedModel& loaded) {
  {
    absl::MutexLock lock(&mu_);
    State& state = states_.at(model);
    if (std::find(state.workers.begin(), state.workers.end(), worker) == state.workers.end()) {
      state.workers.push_back(worker);
    }
    state.loaded = loaded;
    state.phase = ModelPhase::kReady;
    state.detail.clear();
  }
  Notify();
}

void ModelTable::SetFailed(WorkerId worker, ModelId model, const absl::Status& status) {
  {
    absl::MutexLock lock(&mu_);
    State& state = states_.at(model);
    std::erase(state.workers, worker);
    if (!state.workers.empty()) return;
    state.phase = ModelPhase::kFailed;
    state.detail = std::string(status.message());
  }
  Notify();
}

void ModelTable::RemoveWorker(WorkerId worker) {
  {
    absl::MutexLock lock(&mu_);
    for (State& state : states_) {
      std::erase(state.workers, worker);
      if (state.workers.empty() && state.phase == ModelPhase::kReady) {
        state.phase = ModelPhase::kRecovering;
      }
    }
  }
  Notify();
}

void ModelTable::Notify() const {
  if (changed_) changed_();
}

}  // namespace hanmo
