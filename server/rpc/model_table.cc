#include "server/rpc/model_table.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/batcher/clock.h"

namespace hanmo {
namespace {

constexpr absl::string_view kStable = "stable";

void Insert(WorkerId worker, std::vector<WorkerId>& workers) {
  if (std::find(workers.begin(), workers.end(), worker) == workers.end()) workers.push_back(worker);
}

// The vocabulary beside the reranker, if there is one, which must not know more than the model.
void OpenReranker(const std::filesystem::path& folder, Model* model) {
  auto tokenizer = Tokenizer::Load(folder, "BertTokenizer");
  if (tokenizer.ok()) {
    model->reranker_tokenizer = *std::move(tokenizer);
  } else if (!absl::IsNotFound(tokenizer.status())) {
    model->spec.status = tokenizer.status();
    return;
  }
  const Tokenizer& own =
      model->reranker_tokenizer != nullptr ? *model->reranker_tokenizer : *model->tokenizer;
  const uint32_t vocabulary = model->spec.picture.reranker_vocabulary;
  if (own.vocab_size() <= vocabulary) return;
  model->spec.status = absl::InvalidArgumentError(
      absl::StrCat("reranker/config.json has vocab_size ", vocabulary, ", less than the ",
                   own.vocab_size(), " tokens of its vocabulary"));
}

// Requests are framed by the tokenizer, and the model was told by its configuration how.
void CheckTokenIds(Model* model) {
  const PictureTokensSpec& tokens = model->spec.tokens;
  const Tokenizer& tokenizer = *model->tokenizer;
  const auto fail = [&](absl::string_view key, uint32_t configured, absl::string_view found) {
    model->spec.status = absl::InvalidArgumentError(absl::StrCat(
        "transformer/config.json has ", key, " ", configured, ", but the tokenizer ", found));
  };
  if (tokenizer.vocab_size() > tokens.text_vocabulary) {
    fail("text_vocab_size", tokens.text_vocabulary,
         absl::StrCat("has ", tokenizer.vocab_size(), " tokens"));
  } else if (tokenizer.special().cls != tokens.cls) {
    fail("cls_token_id", tokens.cls, "has another [CLS]");
  } else if (tokenizer.special().sep != tokens.sep) {
    fail("sep_token_id", tokens.sep, "has another [SEP]");
  }
}

}  // namespace

void SetTokenizer(std::unique_ptr<const Tokenizer> tokenizer, Model* model) {
  model->tokenizer = std::move(tokenizer);
  if (model->spec.kind != ModelKind::kText) return;
  const Tokenizer& words = *model->tokenizer;
  model->guides =
      std::make_unique<LazyGuideVocabulary>([&words] { return GuideVocabulary::Create(words); });
}

Model OpenModel(ModelSpec spec) {
  Model model;
  model.spec = std::move(spec);
  if (!model.spec.status.ok()) return model;
  const bool picture = model.spec.kind != ModelKind::kText;
  std::filesystem::path folder = model.spec.path;
  if (picture) folder /= "tokenizer";
  // What transformers assumes where tokenizer_config.json names no class.
  const bool gpt2 = absl::StartsWith(model.spec.architecture, "GPT2");
  auto tokenizer = Tokenizer::Load(folder, gpt2 ? "GPT2Tokenizer" : "");
  if (!tokenizer.ok()) {
    // A text model serves token ids without one; a picture cannot be asked for without words.
    if (picture || !absl::IsNotFound(tokenizer.status())) model.spec.status = tokenizer.status();
    return model;
  }
  SetTokenizer(*std::move(tokenizer), &model);
  if (model.spec.kind == ModelKind::kPictureTokens) CheckTokenIds(&model);
  if (model.spec.picture.reranker_tokens > 0) {
    OpenReranker(std::filesystem::path(model.spec.path) / "reranker", &model);
  }
  auto chat_template = ChatTemplate::Load(folder, *model.tokenizer);
  if (chat_template.ok()) {
    model.chat_template = *std::move(chat_template);
  } else if (!absl::IsNotFound(chat_template.status())) {
    model.spec.status = chat_template.status();
  }
  return model;
}

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
