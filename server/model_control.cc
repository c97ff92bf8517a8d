#include "server/model_control.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/repository.h"

namespace hanmo {
namespace {

namespace fs = std::filesystem;

// For a worker to finish its step and free a model; a worker that takes longer is stuck.
constexpr absl::Duration kFreeingTime = absl::Minutes(1);

Metrics::ModelLabel LabelOf(const ModelSpec& spec) {
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

}  // namespace

class ModelControl::Operation {
 public:
  bool cancelled = false;  // guarded by the control's mutex
};

uint64_t WeightFileBytes(const std::string& folder) {
  // A folder may have both formats of the same weights.
  std::map<fs::path, std::pair<uint64_t, uint64_t>> bytes;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string extension = it->path().extension().string();
    std::error_code ignored;
    const uintmax_t size = it->file_size(ignored);
    if (ignored) continue;
    auto& [safetensors, pickled] = bytes[it->path().parent_path()];
    if (extension == ".safetensors") safetensors += size;
    if (extension == ".bin" || extension == ".ckpt") pickled += size;
  }
  uint64_t sum = 0;
  for (const auto& [path, pair] : bytes) sum += std::max(pair.first, pair.second);
  return sum;
}

ModelControl::ModelControl(Options options, ModelTable* models, Batcher* batcher, Metrics* metrics,
                           Log* log)
    : options_(std::move(options)),
      models_(*models),
      batcher_(*batcher),
      metrics_(*metrics),
      log_(*log) {
  models_.OnUnused([this](ModelId model) { Post([this, model] { Release(model); }); });
}

ModelControl::~ModelControl() {
  Stop();
  models_.OnUnused(nullptr);
}

absl::StatusOr<std::vector<FleetModel>> ModelControl::ServeRepository(
    const std::vector<std::string>& load) {
  auto scan = ScanRepository(options_.repository);
  if (!scan.ok()) return scan.status();
  LimitContext(options_.max_context_tokens, &scan->models);
  for (const std::string& skipped : scan->skipped) {
    log_.Write(LogLevel::kWarning, "folder skipped", {{"reason", skipped}});
  }
  std::map<std::string, std::vector<ModelSpec>> names;
  for (ModelSpec& spec : scan->models) names[spec.name].push_back(std::move(spec));
  if (names.empty()) {
    log_.Write(LogLevel::kWarning, "the model repository has no models",
               {{"folder", options_.repository}});
  }
  for (const auto& [name, specs] : names) models_.SetKnown(name, specs);

  std::vector<ModelSpec> wanted;
  for (const std::string& entry : load) {
    if (entry == "*") {
      for (const auto& [name, specs] : names) wanted.push_back(specs.back());
      continue;
    }
    const auto parsed = ParseLoad(entry);
    const auto found = parsed ? names.find(parsed->first) : names.end();
    if (found == names.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("--load: the repository has no model \"", entry, "\""));
    }
    auto spec = Choose(found->second, parsed->second);
    if (!spec.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--load: ", spec.status().message()));
    }
    wanted.push_back(*std::move(spec));
  }
  std::vector<FleetModel> models;
  for (ModelSpec& spec : wanted) {
    const ModelRef model = Adopt(OpenModel(std::move(spec)));
    models_.Serve(model);
    if (!model->spec.status.ok()) {
      metrics_.ModelLoadFailed(model->spec.name);
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
  return models;
}

ModelRef ModelControl::Adopt(Model model) {
  model.spec.id = next_id_++;
  metrics_.AddModel(model.spec.id, LabelOf(model.spec));
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
    metrics_.ModelLoadFailed(name);
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

uint64_t ModelControl::MemoryUsed() {
  uint64_t sum = 0;
  for (auto& [id, bytes] : resident_) {
    const ModelStatus status = models_.Status(id);
    if (status.loaded.weight_bytes > 0) bytes = status.loaded.weight_bytes;
    sum += bytes;
  }
  return sum;
}

uint64_t ModelControl::ExpectedBytes(const std::string& folder) const {
  const auto found = measured_.find(folder);
  return found == measured_.end() ? WeightFileBytes(folder) : found->second;
}

absl::Status ModelControl::MakeRoom(uint64_t bytes) {
  if (options_.memory == 0) return absl::OkStatus();
  if (bytes > options_.memory) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the model takes about ", bytes, " bytes, --model-memory allows ", options_.memory));
  }
  std::set<ModelId> tried;
  while (MemoryUsed() + bytes > options_.memory) {
    // The one that nobody has asked for the longest.
    ModelRef oldest;
    for (const ModelRef& model : models_.Served()) {
      if (!resident_.contains(model->spec.id) || tried.contains(model->spec.id)) continue;
      if (models_.phase(model->spec.id) != ModelPhase::kReady) continue;
      if (oldest == nullptr || *model->found_at < *oldest->found_at) oldest = model;
    }
    if (oldest == nullptr) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the model takes about ", bytes, " bytes; of ", options_.memory,
                       " that --model-memory allows, ", MemoryUsed(), " are in use"));
    }
    tried.insert(oldest->spec.id);
    Rest(oldest);
  }
  return absl::OkStatus();
}

bool ModelControl::Rest(const ModelRef& model) {
  const ModelId id = model->spec.id;
  std::optional<bool> rested;
  batcher_.RestModel(
      id,
      [this, &rested](bool yes) {
        absl::MutexLock lock(&mu_);
        rested = yes;
      },
      [this, id] { Post([this, id] { Wake(id); }); });
  {
    absl::MutexLock lock(&mu_);
    const auto answered = [&] { return rested.has_value(); };
    mu_.Await(absl::Condition(&answered));
  }
  if (!*rested) return false;
  fleet_->Forget(id);
  models_.SetIdle(id);
  if (!FreeInWorkers(id, true)) {
    absl::MutexLock lock(&mu_);
    const auto freed = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return stopping_ || !leaving_.contains(id);
    };
    mu_.AwaitWithTimeout(absl::Condition(&freed), kFreeingTime);
  }
  resident_.erase(id);
  log_.Write(LogLevel::kInfo, "model idle", {{"model", model->spec.name}});
  return true;
}

void ModelControl::Wake(ModelId model) {
  for (const ModelRef& served : models_.Served()) {
    if (served->spec.id != model || models_.phase(model) != ModelPhase::kIdle) continue;
    const uint64_t bytes = ExpectedBytes(served->spec.path);
    if (auto status = MakeRoom(bytes); !status.ok()) {
      log_.Write(LogLevel::kWarning, "no memory for a model",
                 {{"model", served->spec.name}, {"reason", status.message()}});
      // Its requests can't be served now. The next one tries again.
      batcher_.ModelFailed(model);
      batcher_.RestModel(
          model, [](bool) {}, [this, model] { Post([this, model] { Wake(model); }); });
      return;
    }
    models_.SetLoading(model);
    resident_[model] = bytes;
    fleet_->Load({model, served->spec.name, served->spec.path});
    return;
  }
}

void ModelControl::Release(ModelId model) {
  if (fleet_ == nullptr) return Forget(model);
  fleet_->Forget(model);
  batcher_.RemoveModel(model, [this, model] {
    Post([this, model] {
      if (FreeInWorkers(model, false)) Forget(model);
    });
  });
}

bool ModelControl::FreeInWorkers(ModelId model, bool rests) {
  {
    absl::MutexLock lock(&mu_);
    leaving_[model].rests = rests;  // answers may come before we know whose
  }
  const std::vector<WorkerId> asked = fleet_->Unload(model);
  absl::MutexLock lock(&mu_);
  Leaving& leaving = leaving_[model];
  leaving.asked.insert(asked.begin(), asked.end());
  leaving.complete = true;
  if (!std::includes(leaving.gone.begin(), leaving.gone.end(), leaving.asked.begin(),
                     leaving.asked.end())) {
    return false;
  }
  leaving_.erase(model);
  return true;
}

void ModelControl::Forget(ModelId model) {
  const ModelStatus status = models_.Status(model);
  if (!status.name.empty()) {
    log_.Write(LogLevel::kInfo, "model unloaded",
               {{"model", status.name}, {"version", int64_t{status.version}}});
  }
  models_.Remove(model);
  metrics_.RemoveModel(model);
  resident_.erase(model);
  auto node = when_gone_.extract(model);
  if (!node.empty()) node.mapped()();
}

void ModelControl::ModelChanged() {
  // Whoever waits looks again when the lock is given back.
  absl::MutexLock lock(&mu_);
}

void ModelControl::ModelLoaded() {
  Post([this] {
    for (const ModelRef& model : models_.Served()) {
      const uint64_t bytes = models_.Status(model->spec.id).loaded.weight_bytes;
      if (bytes > 0) measured_[model->spec.path] = bytes;
    }
    // It may be more than its files said. Who has requests stays.
    (void)MakeRoom(0);
  });
}

void ModelControl::WorkerUp(WorkerId worker) {
  absl::MutexLock lock(&mu_);
  up_.insert(worker);
}

void ModelControl::WorkerLost(WorkerId worker) {
  std::vector<ModelId> models;
  {
    absl::MutexLock lock(&mu_);
    up_.erase(worker);
    for (const auto& [model, leaving] : leaving_) models.push_back(model);
  }
  for (const ModelId model : models) ModelUnloaded(worker, model);
}

void ModelControl::ModelUnloaded(WorkerId worker, ModelId model) {
  absl::MutexLock lock(&mu_);
  auto found = leaving_.find(model);
  if (found == leaving_.end()) return;
  Leaving& leaving = found->second;
  leaving.gone.insert(worker);
  if (!leaving.complete || !std::includes(leaving.gone.begin(), leaving.gone.end(),
                                          leaving.asked.begin(), leaving.asked.end())) {
    return;
  }
  if (!leaving.rests) tasks_.push_back([this, model] { Forget(model); });
  leaving_.erase(found);
}

}  // namespace hanmo
