#include "server/model_control.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/repository.h"

namespace hanmo {
namespace {

Figures::ModelLabel LabelOf(const ModelSpec& spec) {
  return {spec.name, spec.kind == ModelKind::kText ? "text" : "picture"};
}

// The fault of a folder, told to who asked for it.
absl::Status CannotLoad(const ModelSpec& spec, absl::string_view reason) {
  return absl::FailedPreconditionError(
      absl::StrCat("model ", spec.name, " version ", spec.version, ": ", reason));
}

absl::StatusOr<ModelSpec> Choose(const std::vector<ModelSpec>& specs, uint32_t version) {
  if (version == 0) return specs.back();
  std::vector<uint32_t> numbers;
  for (const ModelSpec& spec : specs) {
    if (spec.version == version) return spec;
    numbers.push_back(spec.version);
  }
  return absl::NotFoundError(absl::StrCat("version: the repository has no version ", version,
                                          " of ", specs.front().name, "; it has ",
                                          absl::StrJoin(numbers, ", ")));
}

void LimitContext(uint32_t most, std::vector<ModelSpec>* specs) {
  for (ModelSpec& spec : *specs) {
    TextModelSpec& text = spec.text;
    if (spec.kind != ModelKind::kText || most == 0 || text.context_tokens <= most) continue;
    text.context_tokens = most;
    text.max_tokens = std::min(text.max_tokens, std::max(1u, most / 2));
  }
}

// "NAME" or "NAME:VERSION".
std::optional<std::pair<std::string, uint32_t>> ParseLoad(const std::string& entry) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(entry, absl::MaxSplits(':', 1));
  uint32_t version = 0;
  if (!parts.second.empty() && (!absl::SimpleAtoi(parts.second, &version) || version == 0)) {
    return std::nullopt;
  }
  return std::make_pair(parts.first, version);
}

using Versions = std::map<std::string, std::vector<ModelSpec>>;  // of a model, oldest first

absl::StatusOr<ModelSpec> Choose(const Versions& names, const std::string& name, uint32_t version) {
  const auto found = names.find(name);
  if (found != names.end()) return Choose(found->second, version);
  return absl::NotFoundError(absl::StrCat("the repository has no model \"", name, "\""));
}

absl::Status AddChosen(absl::string_view option, absl::StatusOr<ModelSpec> chosen,
                       std::vector<ModelSpec>* specs) {
  if (!chosen.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(option, ": ", chosen.status().message()));
  }
  const bool there = std::any_of(specs->begin(), specs->end(), [&](const ModelSpec& spec) {
    return spec.name == chosen->name && spec.version == chosen->version;
  });
  if (!there) specs->push_back(*std::move(chosen));
  return absl::OkStatus();
}

// What is served at the start, each once. INVALID_ARGUMENT names the option at fault.
absl::StatusOr<std::vector<ModelSpec>> FirstServed(const Versions& names,
                                                   const std::vector<std::string>& load,
                                                   const std::vector<VersionLabel>& labels) {
  std::vector<ModelSpec> specs;
  // First, should the memory not suffice for all.
  for (const VersionLabel& label : labels) {
    auto chosen = Choose(names, label.model, label.version);
    if (auto status = AddChosen("--label", std::move(chosen), &specs); !status.ok()) return status;
  }
  for (const std::string& entry : load) {
    if (entry == "*") {
      for (const auto& [name, versions] : names) {
        if (auto status = AddChosen("--load", versions.back(), &specs); !status.ok()) return status;
      }
      continue;
    }
    const auto parsed = ParseLoad(entry);
    auto chosen = parsed ? Choose(names, parsed->first, parsed->second) : Choose(names, entry, 0);
    if (auto status = AddChosen("--load", std::move(chosen), &specs); !status.ok()) return status;
  }
  return specs;
}

}  // namespace

class ModelControl::Operation {
 public:
  bool cancelled = false;  // guarded by the control's mutex
};

ModelControl::ModelControl(Options options, ModelTable* models, Batcher* batcher, Figures* figures,
                           Log* log)
    : options_(std::move(options)),
      models_(*models),
      batcher_(*batcher),
      figures_(*figures),
      log_(*log) {
  models_.OnUnused([this](ModelId model) { Post([this, model] { Release(model); }); });
}

ModelControl::~ModelControl() {
  Stop();
  models_.OnUnused(nullptr);
}

absl::StatusOr<std::vector<FleetModel>> ModelControl::ServeRepository(
    const std::vector<std::string>& load, const std::vector<VersionLabel>& labels) {
  auto scan = ScanRepository(options_.repository);
  if (!scan.ok()) return scan.status();
  LimitContext(options_.max_context_tokens, &scan->models);
  for (const std::string& skipped : scan->skipped) {
    log_.Write(LogLevel::kWarning, "folder skipped", {{"reason", skipped}});
  }
  Versions names;
  for (ModelSpec& spec : scan->models) names[spec.name].push_back(std::move(spec));
  if (names.empty()) {
    log_.Write(LogLevel::kWarning, "the model repository has no models",
               {{"folder", options_.repository}});
  }
  for (const auto& [name, specs] : names) models_.SetKnown(name, specs);

  auto wanted = FirstServed(names, load, labels);
  if (!wanted.ok()) return wanted.status();
  std::vector<FleetModel> models;
  for (ModelSpec& spec : *wanted) {
    const ModelRef model = Adopt(OpenModel(std::move(spec)));
    models_.Serve(model);
    if (!model->spec.status.ok()) {
      figures_.ModelLoadFailed(model->spec.name);
      log_.Write(LogLevel::kError, "model failed",
                 {{"model", model->spec.name}, {"reason", model->spec.status.message()}});
      continue;
    }
    const ModelId id = model->spec.id;
    const uint64_t bytes = ExpectedBytes(model->spec.path);
    if (options_.memory > 0 && MemoryUsed() + bytes > options_.memory) {
      models_.SetIdle(id);
      batcher_.RestModel(id, [](bool) {}, [this, id] { Post([this, id] { Wake(id); }); });
      continue;
    }
    resident_[id] = bytes;
    models.push_back({id, model->spec.name, model->spec.path});
  }
  for (const VersionLabel& label : labels) {
    models_.BeginWithLabel(label.model, label.label, label.version);
  }
  return models;
}

ModelRef ModelControl::Adopt(Model model) {
  model.spec.id = next_id_++;
  figures_.AddModel(model.spec.id, LabelOf(model.spec));
  return models_.Add(std::move(model));
}

void ModelControl::Start(Fleet* fleet) {
  fleet_ = fleet;
  thread_ = std::thread([this] { Run(); });
}

void ModelControl::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

void ModelControl::Post(std::function<void()> task) {
  absl::MutexLock lock(&mu_);
  tasks_.push_back(std::move(task));
}

void ModelControl::Run() {
  while (true) {
    std::function<void()> task;
    {
      absl::MutexLock lock(&mu_);
      const auto ready = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
        return stopping_ || !tasks_.empty();
      };
      mu_.Await(absl::Condition(&ready));
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    task();
  }
}

std::shared_ptr<ModelControl::Operation> ModelControl::Load(
    const std::string& name, uint32_t version, std::function<void(absl::StatusOr<Loaded>)> done) {
  auto operation = std::make_shared<Operation>();
  Post([this, name, version, operation, done = std::move(done)] {
    absl::StatusOr<Loaded> loaded = DoLoad(name, version, *operation);
    if (loaded.ok()) {
      log_.Write(LogLevel::kInfo, "model served",
                 {{"model", name}, {"version", int64_t{loaded->version}}});
    } else {
      log_.Write(LogLevel::kWarning, "model not loaded",
                 {{"model", IsModelName(name) ? name : ""}, {"reason", loaded.status().message()}});
    }
    done(std::move(loaded));
  });
  return operation;
}

void ModelControl::Cancel(Operation& operation) {
  absl::MutexLock lock(&mu_);
  operation.cancelled = true;
}

absl::StatusOr<ModelControl::Loaded> ModelControl::DoLoad(const std::string& name, uint32_t version,
                                                          Operation& operation) {
  auto specs = ReadVersions(options_.repository, name);
  if (!specs.ok()) return specs.status();
  LimitContext(options_.max_context_tokens, &*specs);
  models_.SetKnown(name, *specs);
  auto spec = Choose(*specs, version);
  if (!spec.ok()) return spec.status();
  Model opened = OpenModel(*spec);
  if (!opened.spec.status.ok()) {
    figures_.ModelLoadFailed(name);
    return CannotLoad(*spec, opened.spec.status.message());
  }
  const uint64_t bytes = ExpectedBytes(spec->path);
  if (auto status = MakeRoom(bytes); !status.ok()) return status;

  ModelRef before = models_.Find(name, absl::StrCat(spec->version));
  if (before == nullptr) before = models_.Find(name);
  const ModelRef model = Adopt(std::move(opened));
  const ModelId id = model->spec.id;
  resident_[id] = bytes;
  if (before != nullptr) batcher_.InheritCosts(before->spec.id, id);
  before.reset();
  fleet_->Load({id, name, spec->path});
  if (auto status = AwaitLoaded(id, operation); !status.ok()) {
    return absl::IsInternal(status) ? CannotLoad(*spec, status.message()) : status;
  }
  models_.Serve(model);
  const LoadedModel loaded = models_.Status(id).loaded;
  resident_[id] = loaded.weight_bytes;
  return Loaded{spec->version, absl::Seconds(loaded.load_seconds), loaded.weight_bytes};
}

absl::Status ModelControl::AwaitLoaded(ModelId model, Operation& operation) {
  absl::MutexLock lock(&mu_);
  absl::Status fault;
  const auto ended = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    const ModelStatus status = models_.Status(model);
    if (stopping_) {
      fault = absl::UnavailableError("the server is shutting down");
    } else if (operation.cancelled) {
      fault = absl::CancelledError("the load was cancelled");
    } else if (!status.failed_on.empty()) {
      fault = absl::InternalError(status.detail);
    } else {
      return !up_.empty() && std::all_of(up_.begin(), up_.end(), [&](WorkerId worker) {
        return std::find(status.workers.begin(), status.workers.end(), worker) !=
               status.workers.end();
      });
    }
    return true;
  };
  mu_.Await(absl::Condition(&ended));
  return fault;
}

void ModelControl::Unload(const std::string& name, uint32_t version,
                          std::function<void(absl::StatusOr<std::vector<uint32_t>>)> done) {
  Post([this, name, version, done = std::move(done)] {
    std::vector<ModelId> ids;
    auto versions = Withdraw(name, version, &ids);
    if (!versions.ok()) return done(versions.status());
    log_.Write(LogLevel::kInfo, "model withdrawn",
               {{"model", name}, {"versions", absl::StrJoin(*versions, ",")}});
    // The last one that is gone answers.
    auto left = std::make_shared<size_t>(ids.size());
    for (const ModelId id : ids) {
      when_gone_[id] = [left, versions = *versions, done] {
        if (--*left == 0) done(versions);
      };
    }
  });
}

absl::StatusOr<std::vector<uint32_t>> ModelControl::Withdraw(const std::string& name,
                                                             uint32_t version,
                                                             std::vector<ModelId>* ids) {
  std::vector<uint32_t> versions;
  for (const ModelRef& model : models_.Served()) {
    if (model->spec.name != name || (version != 0 && model->spec.version != version)) continue;
    const std::vector<std::string> labels = models_.Labels(model->spec);
    if (!labels.empty()) {
      return absl::FailedPreconditionError(absl::StrCat("version: ", model->spec.version,
                                                        " has the label \"", labels.front(),
                                                        "\"; move or remove it first"));
    }
    versions.push_back(model->spec.version);
    ids->push_back(model->spec.id);
  }
  if (versions.empty()) {
    if (version != 0 && models_.Knows(name)) {
      return absl::NotFoundError(
          absl::StrCat("version: ", version, " of model ", name, " is not loaded"));
    }
    return absl::NotFoundError(absl::StrCat("name: no model \"", name, "\" is loaded"));
  }
  for (const uint32_t number : versions) {
    if (auto status = models_.Withdraw(name, number); !status.ok()) return status;
  }
  return versions;
}

void ModelControl::ModelChanged() {
  // Whoever waits looks again when the lock is given back.
  absl::MutexLock lock(&mu_);
}

}  // namespace hanmo
