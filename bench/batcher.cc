// Time of one tick of the batcher: all running samples advance by one token (or one denoising
// step), their results are delivered, and the next step is planned. The worker and the sinks do
// nothing.
//
//   bench_batcher            prints one JSON line per case; times in microseconds
//
// Only Tick is timed: messages are put into the inbox before.
#include "server/batcher/batcher.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <vector>

#include "server/batcher/testing/ignoring_sink.h"

namespace hanmo {
namespace {

constexpr int kTicks = 20000;
constexpr ModelId kModel = 0;

// Keeps what the loop below needs to answer the steps.
class NullLink final : public WorkerLink {
 public:
  void Begin(SampleHandle, ModelId, const SampleJob&, hanmo::Resume) override {}
  void Run(const Step& step) override {
    SentStep& sent = steps[step.id % steps.size()];
    sent.id = step.id;
    sent.kind = step.kind;
    sent.samples.clear();
    for (const Row& row : step.rows) sent.samples.push_back(row.sample);
  }
  void Resume(uint64_t, absl::Duration) override {}
  void Save(const std::vector<SampleHandle>&) override {}
  void Drop(const std::vector<SampleHandle>&) override {}

  struct SentStep {
    uint64_t id = 0;
    StepKind kind = StepKind::kText;
    std::vector<SampleHandle> samples;
  };
  std::array<SentStep, 4> steps;  // by id; two are in flight
};

StepResult Answer(const NullLink::SentStep& step, uint32_t done) {
  StepResult result;
  result.step = step.id;
  result.rows.resize(step.samples.size());
  for (size_t i = 0; i < step.samples.size(); ++i) {
    RowResult& row = result.rows[i];
    row.sample = step.samples[i];
    row.steps_total = UINT32_MAX;
    row.steps_done = done;
    if (step.kind == StepKind::kText) row.tokens.push_back({1, 0, {}});
  }
  return result;
}

Request MakeRequest(bool text) {
  Request request;
  request.model = kModel;
  if (text) {
    TextJob job;
    job.prompt = {1, 2, 3, 4};
    job.max_tokens = UINT32_MAX - 8;
    job.stop_token_ids = {0};
    request.samples.push_back(job);
  } else {
    PictureJob job;
    job.prompt = {1, 2, 3, 4};
    job.width = job.height = 512;
    request.samples.push_back(job);
  }
  return request;
}

void Measure(bool text, uint32_t running, uint32_t queued) {
  BatcherObserver observer;
  BatcherOptions options;
  options.max_running_samples = running;
  options.max_queued_requests = UINT32_MAX;
  options.max_picture_batch = running;
  options.prefill_chunk_tokens = UINT32_MAX;
  options.prefix_cache_bytes = 1 << 28;
  options.speculative_tokens = 8;
  Batcher batcher(options, &observer, [] {});
  auto link = std::make_shared<NullLink>();
  batcher.AddWorker(0, link);
  ModelCapacity capacity;
  capacity.page_tokens = 16;
  capacity.page_bytes = 1 << 19;
  capacity.pages = running * (kTicks / 16 + 4);
  capacity.max_batch = running;
  batcher.ModelReady(0, kModel, capacity);
  for (uint32_t i = 0; i < running + queued; ++i) {
    batcher.Submit(MakeRequest(text), std::make_shared<testing::IgnoringSink>());
  }
  absl::Time now = absl::UnixEpoch();
  batcher.Tick(now);
  uint64_t answered = 0;
  std::vector<double> times;
  for (uint32_t i = 0; i < kTicks; ++i) {
    batcher.StepDone(0, Answer(link->steps[++answered % 4], i));
    now += absl::Milliseconds(10);
    const auto start = std::chrono::steady_clock::now();
    batcher.Tick(now);
    const std::chrono::duration<double, std::micro> time = std::chrono::steady_clock::now() - start;
    times.push_back(time.count());
  }
  std::sort(times.begin(), times.end());
  std::printf(
      "{\"kind\": \"%s\", \"running\": %u, \"queued\": %u, \"tick_p50_us\": %.2f, "
      "\"tick_p99_us\": %.2f}\n",
      text ? "text" : "picture", running, queued, times[kTicks / 2], times[kTicks / 100 * 99]);
}

}  // namespace
}  // namespace hanmo

int main() {
  for (const bool text : {true, false}) {
    for (const uint32_t running : {1, 64, 1024}) {
      for (const uint32_t queued : {0, 100000}) hanmo::Measure(text, running, queued);
    }
  }
}
