#include "server/batcher/testing/batcher_fixture.h"

#include <algorithm>

namespace hanmo::testing {

void BatcherTest::Start() {
  // Fake steps take no time, so nothing is ever measured.
  options_.cold_picture_batch = options_.max_picture_batch;
  batcher_ = std::make_unique<Batcher>(options_, &observer_, [this] { ++wakes_; });
  AddWorker();
  Tick();
}

FakeWorker& BatcherTest::AddWorker() {
  const auto id = static_cast<WorkerId>(workers_.size());
  workers_.push_back(std::make_shared<FakeWorker>(id, batcher_.get()));
  batcher_->AddWorker(id, workers_.back());
  workers_.back()->SetVariants(variants_, change_);
  ModelCapacity text;
  text.page_tokens = kPageTokens;
  text.pages = pages_;
  text.page_bytes = 1;
  workers_.back()->Serve(kText, text);
  workers_.back()->Serve(kOtherText, text);
  workers_.back()->Serve(kPictures, {});
  return *workers_.back();
}

TextJob BatcherTest::Text(uint32_t prompt_tokens, uint32_t max_tokens, uint64_t seed) {
  TextJob job;
  for (uint32_t i = 0; i < prompt_tokens; ++i) job.prompt.push_back(i + 1);
  job.max_tokens = max_tokens;
  job.sampling.seed = seed;
  return job;
}

PictureJob BatcherTest::Picture(uint32_t steps, uint64_t seed, uint32_t size) {
  PictureJob job;
  job.prompt = {1, 2, 3};
  job.steps = steps;
  job.seed = seed;
  job.width = job.height = size;
  return job;
}

RequestId BatcherTest::Submit(std::vector<SampleJob> jobs, absl::Duration deadline) {
  Request request;
  request.model = std::holds_alternative<TextJob>(jobs.front()) ? text_model_ : kPictures;
  request.tenant = tenant_;
  request.priority = priority_;
  request.arrival = now_;
  request.deadline = now_ + deadline;
  sinks_.push_back(std::make_shared<RecordingSink>(jobs.size()));
  request.samples = std::move(jobs);
  return batcher_->Submit(std::move(request), sinks_.back());
}

void BatcherTest::Steps(int count) {
  for (int i = 0; i < count; ++i) {
    for (auto& worker : workers_) worker->RunStep();
    Tick();
  }
}

void BatcherTest::RunToIdle() {
  bool moved = true;
  while (moved || batcher_->pending()) {
    Tick();
    moved = false;
    for (auto& worker : workers_) moved |= worker->RunStep();
  }
}

FakeWorker& BatcherTest::Replace(FakeWorker& worker) {
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (workers_[i].get() == &worker) batcher_->WorkerLost(i);
  }
  FakeWorker& successor = AddWorker();
  Tick();
  return successor;
}

std::vector<Step> BatcherTest::NewSteps(FakeWorker& worker) {
  size_t& read = steps_read_[&worker];
  std::vector<Step> steps(worker.steps().begin() + read, worker.steps().end());
  read = worker.steps().size();
  return steps;
}

int64_t BatcherTest::CountSteps(const std::vector<Step>& steps, ModelId model) {
  return std::count_if(steps.begin(), steps.end(),
                       [&](const Step& step) { return step.model == model; });
}

void BatcherTest::ExpectTokens(RequestId id, const TextJob& job, uint32_t count, uint32_t index) {
  std::vector<uint32_t> expected;
  for (uint32_t i = 0; i < count; ++i) expected.push_back(TokenOf(job, i));
  EXPECT_EQ(sink(id).outputs[index].tokens, expected);
}

void BatcherTest::ExpectPicture(RequestId id, const PictureJob& job, uint32_t index) {
  EXPECT_EQ(sink(id).outputs[index].picture, PictureOf(job));
  const bool scored = !job.score_prompt.empty();
  EXPECT_EQ(sink(id).outputs[index].score, scored ? std::optional(ScoreOf(job)) : std::nullopt);
}

void BatcherTest::TearDown() {
  for (auto& worker : workers_) EXPECT_EQ(worker->breaches(), std::vector<std::string>());
}

}  // namespace hanmo::testing
