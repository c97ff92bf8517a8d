// Which models are in the workers' memory: room for those that come, rest for those that nobody
// asks for, and the end of those that nobody holds.
#include <algorithm>
#include <filesystem>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/model_control.h"

namespace hanmo {
namespace {

namespace fs = std::filesystem;

// For a worker to finish its step and free a model; a worker that takes longer is stuck.
constexpr absl::Duration kFreeingTime = absl::Minutes(1);

}  // namespace

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
  figures_.RemoveModel(model);
  resident_.erase(model);
  auto node = when_gone_.extract(model);
  if (!node.empty()) node.mapped()();
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
