#include "workers/fault.h"

#include <cstdlib>
#include <utility>
#include <variant>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace hanmo {
namespace {

uint64_t SeedOf(const TextJob& job) { return job.sampling.seed; }
uint64_t SeedOf(const PictureJob& job) { return job.seed; }

}  // namespace

absl::StatusOr<Fault> ParseFault(const std::string& text) {
  Fault fault;
  const std::vector<absl::string_view> parts = absl::StrSplit(text, '@');
  absl::string_view seed = parts[0];
  bool ok = absl::ConsumePrefix(&seed, "abort-on-seed:") && absl::SimpleAtoi(seed, &fault.seed) &&
            parts.size() <= 2;
  if (ok && parts.size() == 2) {
    absl::string_view step = parts[1];
    ok = absl::ConsumePrefix(&step, "step:") && absl::SimpleAtoi(step, &fault.step) &&
         fault.step >= 1;
  }
  if (ok) return fault;
  return absl::InvalidArgumentError(absl::StrCat(
      "fault \"", text, "\": abort-on-seed:N or abort-on-seed:N@step:K with K >= 1 expected"));
}

absl::StatusOr<LoadedModel> FaultyExecutor::Load(const LoadCommand& load) {
  return executor_->Load(load);
}

void FaultyExecutor::Begin(SampleHandle sample, ModelId model, SampleJob job, Resume resume) {
  const uint64_t seed = std::visit([](const auto& j) { return SeedOf(j); }, job);
  if (seed == fault_.seed) steps_[sample] = 0;
  executor_->Begin(sample, model, std::move(job), std::move(resume));
}

StepResult FaultyExecutor::RunInSlices(const Step& step, YieldListener* listener) {
  for (const Row& row : step.rows) {
    auto sample = steps_.find(row.sample);
    if (sample != steps_.end() && ++sample->second == fault_.step) abort();
  }
  return executor_->RunInSlices(step, listener);
}

std::vector<SavePoint> FaultyExecutor::Save(const std::vector<SampleHandle>& samples) {
  return executor_->Save(samples);
}

void FaultyExecutor::Drop(const std::vector<SampleHandle>& samples) {
  for (SampleHandle sample : samples) steps_.erase(sample);
  executor_->Drop(samples);
}

void FaultyExecutor::Detach() {
  steps_.clear();
  executor_->Detach();
}

}  // namespace hanmo
