#include "server/rpc/model_table.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/batcher/clock.h"

namespace hanmo {
namespace {

constexpr absl::string_view kStable = "stable";

void Insert(WorkerId worker, std::vector<WorkerId>& workers) {
  if (std::find(workers.begin(), workers.end(), worker) == workers.end()) workers.push_back(worker);
}

}  // namespace

bool IsVersionLabel(absl::string_view label) {
  return label.size() <= 64 && !label.empty() && absl::ascii_isalpha(label[0]) &&
         IsModelName(label);
}

// Outlives the table, for the models that do.
class ModelTable::Unused {
 public:
  void Set(std::function<void(ModelId)> callback) {
    absl::MutexLock lock(&mu_);
    callback_ = std::move(callback);
  }
  void Tell(ModelId model) {
    absl::MutexLock lock(&mu_);
    if (callback_) callback_(model);
  }

 private:
  absl::Mutex mu_;
  std::function<void(ModelId)> callback_ ABSL_GUARDED_BY(mu_);
};

ModelTable::ModelTable() : unused_(std::make_shared<Unused>()) {}

ModelTable::ModelTable(std::vector<Model> models) : ModelTable() {
  for (Model& model : models) {
    SetKnown(model.spec.name, {model.spec});
    Serve(Add(std::move(model)));
  }
}

ModelTable::~ModelTable() { unused_->Set(nullptr); }

void ModelTable::OnUnused(std::function<void(ModelId)> unused) { unused_->Set(std::move(unused)); }

const ModelTable::Name* ModelTable::FindName(absl::string_view name) const {
  const auto found = names_.find(name);
  return found == names_.end() ? nullptr : &found->second;
}

ModelPhase ModelTable::PhaseOf(ModelId model) const {
  const auto found = states_.find(model);
  return found == states_.end() ? ModelPhase::kUnloaded : found->second.phase;
}

uint32_t ModelTable::Chosen(const Name& name) const {
  const auto stable = name.labels.find(std::string(kStable));
  if (stable != name.labels.end()) return stable->second;
  for (auto it = name.served.rbegin(); it != name.served.rend(); ++it) {
    const ModelPhase phase = PhaseOf(it->second->spec.id);
    if (phase != ModelPhase::kLoading && phase != ModelPhase::kFailed) return it->first;
  }
  return name.served.empty() ? 0 : name.served.rbegin()->first;
}

ModelRef ModelTable::Find(absl::string_view name, absl::string_view version) const {
  absl::ReaderMutexLock lock(&mu_);
  const Name* found = FindName(name);
  if (found == nullptr) return nullptr;
  uint32_t number = 0;
  if (version.empty()) {
    number = Chosen(*found);
  } else if (const auto label = found->labels.find(std::string(version));
             label != found->labels.end()) {
    number = label->second;
  } else if (!absl::SimpleAtoi(version, &number)) {
    return nullptr;
  }
  const auto model = found->served.find(number);
  if (model == found->served.end()) return nullptr;
  model->second->found_at->store(absl::ToUnixNanos(SteadyNow()), std::memory_order_relaxed);
  return model->second;
}

bool ModelTable::Knows(absl::string_view name) const {
  absl::ReaderMutexLock lock(&mu_);
  return FindName(name) != nullptr;
}

std::vector<ModelListing> ModelTable::List() const {
  absl::ReaderMutexLock lock(&mu_);
  std::vector<ModelListing> listings;
  for (const auto& [name, entry] : names_) {
    std::map<uint32_t, ModelListing::Version> versions;
    for (const auto& [number, spec] : entry.known) versions[number].spec = spec;
    for (const auto& [number, model] : entry.served) {
      versions[number].spec = model->spec;
      versions[number].phase = PhaseOf(model->spec.id);
    }
    for (const auto& [label, number] : entry.labels) versions[number].labels.push_back(label);
    ModelListing& listing = listings.emplace_back();
    listing.name = name;
    listing.chosen = Chosen(entry);
    for (auto& [number, version] : versions) listing.versions.push_back(std::move(version));
  }
  return listings;
}

std::vector<std::string> ModelTable::Labels(const ModelSpec& spec) const {
  absl::ReaderMutexLock lock(&mu_);
  std::vector<std::string> labels;
  const Name* name = FindName(spec.name);
  if (name == nullptr) return labels;
  for (const auto& [label, version] : name->labels) {
    if (version == spec.version) labels.push_back(label);
  }
  return labels;
}

std::vector<ModelRef> ModelTable::Served() const {
  absl::ReaderMutexLock lock(&mu_);
  std::vector<ModelRef> models;
  for (const auto& [name, entry] : names_) {
    for (const auto& [version, model] : entry.served) models.push_back(model);
  }
  return models;
}

ModelPhase ModelTable::phase(ModelId model) const {
  absl::ReaderMutexLock lock(&mu_);
  return PhaseOf(model);
}

ModelStatus ModelTable::Status(ModelId model) const {
  absl::ReaderMutexLock lock(&mu_);
  const auto found = states_.find(model);
  if (found != states_.end()) return found->second;
  ModelStatus gone;
  gone.phase = ModelPhase::kUnloaded;
  return gone;
}

bool ModelTable::ready() const {
  absl::ReaderMutexLock lock(&mu_);
  bool any_ready = false;
  for (const auto& [name, entry] : names_) {
    for (const auto& [version, model] : entry.served) {
      const ModelPhase phase = PhaseOf(model->spec.id);
      if (phase == ModelPhase::kLoading) return false;
      any_ready = any_ready || phase == ModelPhase::kReady || phase == ModelPhase::kIdle;
    }
  }
  return any_ready;
}

ModelRef ModelTable::Add(Model model) {
  {
    absl::MutexLock lock(&mu_);
    ModelStatus& state = states_[model.spec.id];
    state.name = model.spec.name;
    state.version = model.spec.version;
    if (!model.spec.status.ok()) {
      state.phase = ModelPhase::kFailed;
      state.detail = std::string(model.spec.status.message());
    }
  }
  return {new Model(std::move(model)), [unused = unused_](const Model* released) {
            const ModelId id = released->spec.id;
            delete released;
            unused->Tell(id);
          }};
}

void ModelTable::Remove(ModelId model) {
  absl::MutexLock lock(&mu_);
  states_.erase(model);
}

void ModelTable::Serve(const ModelRef& model) {
  ModelRef replaced;  // let go outside of the lock
  {
    absl::MutexLock lock(&mu_);
    Name& name = names_[model->spec.name];
    name.known[model->spec.version] = model->spec;
    replaced = std::exchange(name.served[model->spec.version], model);
  }
  Notify();
}

absl::Status ModelTable::Withdraw(const std::string& name, uint32_t version) {
  ModelRef withdrawn;
  {
    absl::MutexLock lock(&mu_);
    const auto found = names_.find(name);
    if (found == names_.end()) {
      return absl::NotFoundError(absl::StrCat("name: there is no model named \"", name, "\""));
    }
    Name& entry = found->second;
    const auto served = entry.served.find(version);
    if (served == entry.served.end()) {
      return absl::NotFoundError(
          absl::StrCat("version: ", version, " of model ", name, " is not loaded"));
    }
    for (const auto& [label, labelled] : entry.labels) {
      if (labelled != version) continue;
      return absl::FailedPreconditionError(
          absl::StrCat("version: ", version, " has the label \"", label, "\"; move it first"));
    }
    withdrawn = std::move(served->second);
    entry.served.erase(served);
  }
  Notify();
  return absl::OkStatus();
}

absl::Status ModelTable::SetLabel(const std::string& name, const std::string& label,
                                  uint32_t version) {
  if (!IsVersionLabel(label)) {
    return absl::InvalidArgumentError(
        "label: must be 1 to 64 of [A-Za-z0-9._-], beginning with a letter");
  }
  {
    absl::MutexLock lock(&mu_);
    const auto entry = names_.find(name);
    if (entry == names_.end()) {
      return absl::NotFoundError(absl::StrCat("name: there is no model named \"", name, "\""));
    }
    const auto served = entry->second.served.find(version);
    if (served == entry->second.served.end() ||
        PhaseOf(served->second->spec.id) != ModelPhase::kReady) {
      return absl::FailedPreconditionError(absl::StrCat(
          "version: ", version, " of model ", name, " is not ready, so no label can point at it"));
    }
    entry->second.labels[label] = version;
  }
  Notify();
  return absl::OkStatus();
}

void ModelTable::BeginWithLabel(const std::string& name, const std::string& label,
                                uint32_t version) {
  absl::MutexLock lock(&mu_);
  names_[name].labels[label] = version;
}

absl::Status ModelTable::RemoveLabel(const std::string& name, const std::string& label) {
  {
    absl::MutexLock lock(&mu_);
    const auto entry = names_.find(name);
    if (entry == names_.end() || entry->second.labels.erase(label) == 0) {
      return absl::NotFoundError(
          absl::StrCat("label: model \"", name, "\" has no label \"", label, "\""));
    }
  }
  Notify();
  return absl::OkStatus();
}

void ModelTable::SetKnown(const std::string& name, const std::vector<ModelSpec>& versions) {
  absl::MutexLock lock(&mu_);
  Name& entry = names_[name];
  entry.known.clear();
  for (const ModelSpec& spec : versions) entry.known[spec.version] = spec;
}

void ModelTable::SetLoaded(WorkerId worker, ModelId model, const LoadedModel& loaded) {
  {
    absl::MutexLock lock(&mu_);
    const auto found = states_.find(model);
    if (found == states_.end()) return;
    ModelStatus& state = found->second;
    Insert(worker, state.workers);
    state.loaded = loaded;
    state.phase = ModelPhase::kReady;
    state.detail.clear();
  }
  Notify();
}

void ModelTable::SetFailed(WorkerId worker, ModelId model, const absl::Status& status) {
  {
    absl::MutexLock lock(&mu_);
    const auto found = states_.find(model);
    if (found == states_.end()) return;
    ModelStatus& state = found->second;
    std::erase(state.workers, worker);
    Insert(worker, state.failed_on);
    state.detail = std::string(status.message());
    if (state.workers.empty()) state.phase = ModelPhase::kFailed;
  }
  Notify();
}

void ModelTable::RemoveWorker(WorkerId worker) {
  {
    absl::MutexLock lock(&mu_);
    for (auto& [id, state] : states_) {
      std::erase(state.workers, worker);
      if (state.workers.empty() && state.phase == ModelPhase::kReady) {
        state.phase = ModelPhase::kRecovering;
      }
    }
  }
  Notify();
}

void ModelTable::SetIdle(ModelId model) {
  {
    absl::MutexLock lock(&mu_);
    const auto found = states_.find(model);
    if (found == states_.end()) return;
    found->second.phase = ModelPhase::kIdle;
    found->second.workers.clear();
  }
  Notify();
}

void ModelTable::SetLoading(ModelId model) {
  {
    absl::MutexLock lock(&mu_);
    const auto found = states_.find(model);
    if (found == states_.end()) return;
    found->second.phase = ModelPhase::kLoading;
  }
  Notify();
}

void ModelTable::Notify() const {
  if (changed_) changed_();
}

}  // namespace hanmo
