#include "server/rpc/testing/echo_worker.h"

#include <algorithm>

namespace hanmo::testing {

Pixels Noise(uint32_t width, uint32_t height) {
  Pixels pixels{width, height, std::string(size_t{3} * width * height, '\0')};
  // Noise does not compress, so that large pictures make several chunks.
  uint32_t state = 1;
  for (char& byte : pixels.rgb) {
    state = state * 1664525 + 1013904223;
    byte = static_cast<char>(state >> 24);
  }
  return pixels;
}

uint32_t SeenIn(const std::string& rgb, uint32_t place) {
  return 5 + static_cast<unsigned char>(rgb[3 * place % rgb.size()]) % 5;
}
float ScoreOf(uint64_t seed) { return static_cast<float>(seed * 7 % 11) / 11; }

void EchoWorker::Hold() {
  absl::MutexLock lock(&mu_);
  holding_ = true;
}

void EchoWorker::Release(bool resume) {
  // Results leave in the order of their steps: new ones are held until the old ones are gone.
  for (size_t left = SIZE_MAX;;) {
    StepResult result;
    {
      absl::MutexLock lock(&mu_);
      if (!resume) left = std::min(left, held_.size());
      if (held_.empty() || left == 0) {
        holding_ = !resume;
        return;
      }
      result = std::move(held_.front());
      held_.pop_front();
      --left;
    }
    batcher_->StepDone(id_, std::move(result));
  }
}

void EchoWorker::AwaitSteps(uint64_t steps) {
  const auto reached = [this, steps]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return steps_ >= steps; };
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&reached));
}

uint64_t EchoWorker::steps() {
  absl::MutexLock lock(&mu_);
  return steps_;
}

size_t EchoWorker::samples() {
  absl::MutexLock lock(&mu_);
  return samples_.size();
}

void EchoWorker::AwaitSamples(size_t count) {
  const auto reached = [this, count]()
                           ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return samples_.size() == count; };
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&reached));
}

void EchoWorker::Begin(SampleHandle sample, ModelId, const SampleJob& job, hanmo::Resume resume) {
  absl::MutexLock lock(&mu_);
  Sample& state = samples_[sample];
  state = {job, 0, static_cast<uint32_t>(resume.emitted.size()), false};
}

void EchoWorker::Run(const Step& step) {
  StepResult result;
  {
    absl::MutexLock lock(&mu_);
    ++steps_;
    result = Execute(step);
  }
  Report(std::move(result));
}

void EchoWorker::Resume(uint64_t step, absl::Duration budget) {
  StepResult result;
  result.step = step;
  result.already_done = true;
  Report(std::move(result));
}

void EchoWorker::Report(StepResult result) {
  {
    absl::MutexLock lock(&mu_);
    if (holding_) {
      held_.push_back(std::move(result));
      return;
    }
  }
  batcher_->StepDone(id_, std::move(result));
}

void EchoWorker::Drop(const std::vector<SampleHandle>& samples) {
  absl::MutexLock lock(&mu_);
  for (const SampleHandle sample : samples) samples_.erase(sample);
}

StepResult EchoWorker::Execute(const Step& step) {
  StepResult result;
  result.step = step.id;
  result.device_time = absl::Microseconds(10);
  for (const Row& row : step.rows) {
    RowResult& out = result.rows.emplace_back();
    out.sample = row.sample;
    const auto found = samples_.find(row.sample);
    if (found == samples_.end() || found->second.ended) {
      out.skipped = true;
    } else if (step.kind == StepKind::kText) {
      Write(row, &found->second, &out);
    } else {
      Paint(step.kind, row, &found->second, &out);
    }
  }
  return result;
}

void EchoWorker::Write(const Row& row, Sample* sample, RowResult* result) {
  const auto& job = std::get<TextJob>(sample->job);
  sample->known += row.prefill_tokens;
  if (sample->known < job.prompt.size() + sample->done && row.prefill_tokens > 0) return;
  Token& token = result->tokens.emplace_back();
  token.id = job.picture.rgb != nullptr ? SeenIn(*job.picture.rgb, sample->done)
                                        : job.prompt[sample->done % job.prompt.size()];
  ++sample->done;
  token.logprob = -0.5f;
  if (job.sampling.logprobs) token.top.assign(*job.sampling.logprobs, {token.id, -0.5f});
  const auto& stops = job.stop_token_ids;
  sample->ended = !job.paints() && (sample->done == job.max_tokens ||
                                    std::find(stops.begin(), stops.end(), token.id) != stops.end());
}

void EchoWorker::Paint(StepKind kind, const Row& row, Sample* sample, RowResult* result) {
  if (kind == StepKind::kPictureEncode) return;
  if (const auto* text = std::get_if<TextJob>(&sample->job)) {
    result->picture = Noise(text->paint_width, text->paint_height);
    if (!text->score_prompt.empty()) result->score = ScoreOf(text->sampling.seed);
    sample->ended = true;
    return;
  }
  const auto& job = std::get<PictureJob>(sample->job);
  if (kind == StepKind::kDenoise) ++sample->done;
  result->steps_done = sample->done;
  result->steps_total = job.steps;
  if (kind == StepKind::kDenoise && row.preview) result->preview = Noise(8, 8);
  if (kind == StepKind::kVaeDecode) {
    result->picture = Noise(job.width, job.height);
    if (!job.score_prompt.empty()) result->score = ScoreOf(job.seed);
    sample->ended = true;
  }
}

}  // namespace hanmo::testing
