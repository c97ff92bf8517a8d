#include "workers/torch_executor.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/ernie_vilg_pipeline.h"
#include "workers/loading_memory.h"
#include "workers/model_index.h"
#include "workers/picture_pipeline.h"
#include "workers/text_pipeline.h"
#include "workers/torch_status.h"
#include "workers/working_memory.h"

namespace hanmo {
namespace {

absl::StatusOr<at::ScalarType> ParseDtype(const std::string& name, const ComputeDevice& device) {
  if (name.empty()) return device.default_dtype();
  for (at::ScalarType dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
    if (name == DtypeName(dtype)) return dtype;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("dtype \"", name, "\": float32, float16 or bfloat16 expected"));
}

// What must be equal for a loaded model to serve another Load.
std::string KeyOf(const LoadCommand& load) {
  return absl::StrCat(load.path, "\n", load.dtype, "\n", load.deterministic, "\n", load.kv_bytes,
                      "\n", load.max_context_tokens, "\n", load.expert_bytes);
}

}  // namespace

WorkerHello TorchExecutor::Describe() const {
  WorkerHello hello;
  hello.device = device_.name();
  hello.device_name = device_.model();
  hello.memory = device_.memory();
  hello.build = device_.build();
  return hello;
}

std::vector<TorchExecutor::Entry>::iterator TorchExecutor::FindKept(const LoadCommand& load) {
  return std::find_if(kept_.begin(), kept_.end(),
                      [key = KeyOf(load)](const Entry& entry) { return entry.key == key; });
}

std::function<void()> TorchExecutor::Reading(const LoadCommand& load) {
  Unload(load.model);
  if (FindKept(load) != kept_.end()) return nullptr;
  // The next server wants something else: make room first.
  kept_.clear();
  auto entry = std::make_shared<absl::StatusOr<Entry>>();
  readings_[load.model] = entry;
  return [this, load, entry] { *entry = Read(load); };
}

absl::StatusOr<LoadedModel> TorchExecutor::Load(const LoadCommand& load) {
  if (auto kept = FindKept(load); kept != kept_.end()) {
    Unload(load.model);
    models_[load.model] = std::move(*kept);
    kept_.erase(kept);
    return models_[load.model].pipeline->loaded();
  }
  if (!readings_.contains(load.model)) Reading(load)();
  absl::StatusOr<Entry> entry = std::move(*readings_.extract(load.model).mapped());
  if (!entry.ok()) return entry.status();
  HANMO_RETURN_IF_ERROR(CatchTorch([&] {
    c10::InferenceMode inference;
    return entry->pipeline->WarmUp();
  }));
  models_[load.model] = *std::move(entry);
  return models_[load.model].pipeline->loaded();
}

absl::StatusOr<TorchExecutor::Entry> TorchExecutor::Read(const LoadCommand& load) const {
  HANMO_ASSIGN_OR_RETURN(const at::ScalarType dtype, ParseDtype(load.dtype, device_));
  PipelineOptions options;
  options.folder = load.path;
  options.device = &device_;
  options.dtype = dtype;
  options.deterministic = load.deterministic;
  options.kv_bytes = load.kv_bytes;
  options.max_context_tokens = load.max_context_tokens;
  options.expert_bytes = load.expert_bytes;
  Entry entry;
  entry.key = KeyOf(load);
  HANMO_RETURN_IF_ERROR(CatchTorch([&]() -> absl::Status {
    c10::InferenceMode inference;
    LoadingMemory memory;
    HANMO_ASSIGN_OR_RETURN(entry.pipeline, LoadPipeline(options));
    return absl::OkStatus();
  }));
  return entry;
}

absl::StatusOr<std::unique_ptr<Pipeline>> TorchExecutor::LoadPipeline(
    const PipelineOptions& options) const {
  std::error_code error;
  const std::string index_path = options.folder + "/model_index.json";
  if (std::filesystem::exists(index_path, error)) {
    HANMO_ASSIGN_OR_RETURN(const nlohmann::json index, ReadObject(index_path));
    if (PipelineClassOf(index) == kErnieVilgPipeline) return ErnieVilgPipeline::Load(options);
    return PicturePipeline::Load(options);
  }
  if (std::filesystem::exists(options.folder + "/config.json", error)) {
    return TextPipeline::Load(options);
  }
  return absl::NotFoundError(
      absl::StrCat(options.folder, ": neither model_index.json nor config.json is there"));
}

void TorchExecutor::Unload(ModelId model) {
  models_.erase(model);
  readings_.erase(model);
  for (auto sample = samples_.begin(); sample != samples_.end();) {
    sample = sample->second == model ? samples_.erase(sample) : std::next(sample);
  }
}

void TorchExecutor::Begin(SampleHandle sample, ModelId model, SampleJob job, Resume resume) {
  auto found = models_.find(model);
  if (found == models_.end()) return;  // its first step reports the unknown handle
  Pipeline& pipeline = *found->second.pipeline;
  samples_[sample] = model;
  const absl::Status status = CatchTorch([&] {
    c10::InferenceMode inference;
    pipeline.Begin(sample, std::move(job), std::move(resume));
    return absl::OkStatus();
  });
  // No memory even for a latent: the first step reports an unknown sample.
  if (!status.ok()) DropSample(sample);
}

StepResult TorchExecutor::RunInSlices(const Step& step, YieldListener* listener) {
  StepResult result;
  auto found = models_.find(step.model);
  if (found == models_.end()) {
    result.status = absl::NotFoundError(absl::StrCat("model ", step.model, " is not loaded"));
  } else {
    result.status = CatchTorch([&] {
      c10::InferenceMode inference;
      const YieldScope scope(device_.device().is_cpu() ? listener : nullptr);
      const WorkingMemory memory(device_);
      const absl::Status status = found->second.pipeline->Run(step, &result.rows);
      result.peak_bytes = memory.peak_bytes();
      result.weights_time = found->second.pipeline->waited();
      return status;
    });
  }
  if (!result.status.ok()) result.rows.clear();
  for (const RowResult& row : result.rows) {
    if (!row.status.ok()) samples_.erase(row.sample);
  }
  return result;
}

std::vector<SavePoint> TorchExecutor::Save(const std::vector<SampleHandle>& samples) {
  std::vector<SavePoint> points;
  for (SampleHandle sample : samples) {
    auto found = samples_.find(sample);
    if (found == samples_.end()) continue;
    // A save point that can't be made is one less: the sample goes on, and has the one before.
    CatchTorch([&] {
      c10::InferenceMode inference;
      std::optional<SavePoint> point = models_.at(found->second).pipeline->Save(sample);
      if (point.has_value()) points.push_back(*std::move(point));
      return absl::OkStatus();
    }).IgnoreError();
  }
  return points;
}

void TorchExecutor::Drop(const std::vector<SampleHandle>& samples) {
  for (SampleHandle sample : samples) DropSample(sample);
}

void TorchExecutor::DropSample(SampleHandle sample) {
  auto found = samples_.find(sample);
  if (found == samples_.end()) return;
  auto model = models_.find(found->second);
  if (model != models_.end()) model->second.pipeline->Drop(sample);
  samples_.erase(found);
}

void TorchExecutor::Detach() {
  while (!samples_.empty()) DropSample(samples_.begin()->first);
  for (auto& [id, entry] : models_) kept_.push_back(std::move(entry));
  models_.clear();
  readings_.clear();
}

}  // namespace hanmo
