#include "workers/testing/scripted_executor.h"

#include <chrono>
#include <cstdlib>
#include <utility>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace hanmo::testing {
namespace {

// Longer than the shortest budget, 1 microsecond.
void Work() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(3);
  while (std::chrono::steady_clock::now() < end) {
  }
}

}  // namespace

WorkerHello ScriptedExecutor::Describe() const {
  WorkerHello hello;
  hello.device = device_;
  hello.device_name = "scripted";
  hello.memory.total = 1 << 30;
  hello.build = "scripted 1";
  return hello;
}

std::function<void()> ScriptedExecutor::Reading(const LoadCommand& load) {
  if (!absl::StartsWith(load.path, "held")) return nullptr;
  return [this] {
    if (!reading_.HasBeenNotified()) reading_.Notify();
    released_.WaitForNotification();
  };
}

absl::StatusOr<LoadedModel> ScriptedExecutor::Load(const LoadCommand& load) {
  if (load.path == "bad") return absl::InvalidArgumentError("tensor wte.weight: torn");
  if (load.path == "crash") abort();
  LoadedModel loaded;
  loaded.dtype = load.dtype.empty() ? "float32" : load.dtype;
  loaded.weight_bytes = 1000;
  if (absl::StartsWith(load.path, "text")) {
    loaded.architecture = "text";
    loaded.context_tokens = 64;
    loaded.vocabulary_size = 100;
    loaded.page_tokens = 16;
    loaded.page_bytes = 4096;
    loaded.pages = 8;
  } else {
    loaded.architecture = "picture";
    loaded.latent_factor = 8;
    loaded.latent_channels = 4;
    loaded.default_size = 64;
    loaded.prompt_tokens = 77;
    loaded.default_sampler = "ddim";
    loaded.samplers = {"ddim", "pndm"};
  }
  return loaded;
}

void ScriptedExecutor::Begin(SampleHandle sample, ModelId model, SampleJob job, Resume resume) {
  Sample& s = samples_[sample];
  s.done = resume.emitted.size();
  if (!resume.save_point.empty() && !absl::SimpleAtoi(resume.save_point, &s.done)) s.done = 0;
  s.job = std::move(job);
}

StepResult ScriptedExecutor::RunInSlices(const Step& step, YieldListener* listener) {
  StepResult result;
  const YieldScope scope(listener);
  try {
    for (int i = 0; i < 3 && step.kind != StepKind::kText; ++i) {
      Work();
      YieldPoint();
    }
  } catch (const Abandoned& abandoned) {
    result.status = absl::CancelledError(abandoned.what());
    return result;
  }
  if (step.rows.empty()) result.status = absl::InvalidArgumentError("step.rows: empty");
  for (const Row& row : step.rows) result.rows.push_back(RunRow(step.kind, row));
  return result;
}

RowResult ScriptedExecutor::RunRow(StepKind kind, const Row& row) {
  RowResult result;
  result.sample = row.sample;
  auto found = samples_.find(row.sample);
  if (found == samples_.end()) {
    result.status = absl::NotFoundError(absl::StrCat("sample ", row.sample));
    return result;
  }
  Sample& sample = found->second;
  if (const auto* text = std::get_if<TextJob>(&sample.job)) {
    result.skipped = sample.done == text->max_tokens;
    if (!result.skipped) result.tokens.push_back({text->prompt[0] + sample.done++, -0.5f, {}});
    return result;
  }
  const auto& picture = std::get<PictureJob>(sample.job);
  result.steps_total = picture.steps;
  if (kind == StepKind::kDenoise) ++sample.done;
  result.steps_done = sample.done;
  if (row.preview) result.preview = {2, 1, "abcdef"};
  if (kind == StepKind::kVaeDecode) {
    result.picture = {picture.width, picture.height,
                      std::string(3 * picture.width * picture.height, 'p')};
  }
  return result;
}

std::vector<SavePoint> ScriptedExecutor::Save(const std::vector<SampleHandle>& samples) {
  std::vector<SavePoint> points;
  for (SampleHandle handle : samples) {
    auto found = samples_.find(handle);
    if (found == samples_.end() || std::holds_alternative<TextJob>(found->second.job)) continue;
    points.push_back({handle, found->second.done, absl::StrCat(found->second.done)});
  }
  return points;
}

void ScriptedExecutor::Drop(const std::vector<SampleHandle>& samples) {
  for (SampleHandle sample : samples) samples_.erase(sample);
}

}  // namespace hanmo::testing
