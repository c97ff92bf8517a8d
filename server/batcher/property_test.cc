// Random requests, cancels, deadlines, slow readers, deaths and failures, with little room:
// whatever happens, each request ends once, what it delivered is what a lone run delivers, and
// nothing leaks.
#include <random>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {
namespace {

class PropertyTest : public BatcherTest {
 protected:
  struct Observer : BatcherObserver {
    void OnPages(WorkerId worker, ModelId, uint32_t used, uint32_t) override {
      pages[worker] = used;
    }
    void OnLoad(ModelId model, uint32_t waiting, uint32_t running) override {
      load[model] = waiting + running;
    }
    std::map<WorkerId, uint32_t> pages;
    std::map<ModelId, uint32_t> load;
  };

  uint32_t Draw(uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(random_);
  }
  bool Chance(int percent) { return Draw(1, 100) <= static_cast<uint32_t>(percent); }

  SampleJob RandomJob(bool text) {
    if (!text) {
      PictureJob job = Picture(Draw(1, 12), Draw(0, 1 << 30), Chance(50) ? 64 : 128);
      job.preview_every_steps = Draw(0, 3);
      if (Chance(30)) job.score_prompt = {5, 6};
      return job;
    }
    TextJob job = Text(Draw(1, 30), Draw(1, 30), Draw(0, 1 << 30));
    // The others begin alike.
    if (Chance(30)) job.prompt[Draw(0, job.prompt.size() - 1)] = 77;
    if (Chance(30)) job.stop_token_ids = {TokenOf(job, Draw(0, 29))};
    return job;
  }

  void SubmitRandom() {
    const bool text = Chance(60);
    std::vector<SampleJob> jobs;
    const SampleJob job = RandomJob(text);
    for (uint32_t i = Draw(1, 4); i > 0; --i) {
      jobs.push_back(job);
      if (text) std::get<TextJob>(jobs.back()).sampling.seed += i;
    }
    jobs_.push_back(jobs);
    tenant_ = Chance(80) ? "" : "other";
    Submit(jobs, Chance(20) ? absl::Milliseconds(Draw(0, 400)) : absl::InfiniteDuration());
  }

  FakeWorker& Living() {
    for (;;) {
      FakeWorker& worker = *workers_[Draw(0, workers_.size() - 1)];
      if (!gone_.count(&worker)) return worker;
    }
  }

  void Kill(FakeWorker& worker) {
    gone_.insert(&worker);
    Replace(worker);
  }

  // They die together; the batcher learns it one by one.
  void KillAll() {
    for (size_t i = 0; i < workers_.size(); ++i) {
      if (!gone_.insert(workers_[i].get()).second) continue;
      batcher_->WorkerLost(i);
      Tick();
    }
    AddWorker();
    if (Chance(50)) Tick();
    AddWorker();
  }

  void Fill(RecordingSink& sink) {
    if (sink.is_full) return;
    sink.is_full = true;
    sink.late = 0;
  }

  void Act() {
    // One of the latest: of the others most have ended.
    const RequestId any =
        jobs_.empty() ? 0 : jobs_.size() - Draw(0, std::min<size_t>(11, jobs_.size() - 1));
    if (Chance(8)) SubmitRandom();
    if (any > 0 && Chance(3)) batcher_->Cancel(any);
    if (any > 0 && Chance(10)) Fill(sink(any));
    if (any > 0 && Chance(20)) Release(any);
    if (Chance(1)) Kill(Living());
    if (Draw(1, 300) == 1) KillAll();
    if (Chance(2)) Living().FailNextStep(absl::ResourceExhaustedError("out of memory"));
    if (Chance(30)) now_ += absl::Milliseconds(Draw(1, 20));
    FakeWorker& worker = Living();
    if (Chance(80)) worker.RunStep();
    Tick();
  }

  void Release(RequestId id) {
    sink(id).is_full = false;
    batcher_->Wake(id);
  }

  void ExpectPrefix(const SampleJob& job, const RecordingSink::Output& output) {
    if (const auto* text = std::get_if<TextJob>(&job)) {
      ASSERT_LE(output.tokens.size(), text->max_tokens);
      for (size_t i = 0; i < output.tokens.size(); ++i) {
        ASSERT_EQ(output.tokens[i], TokenOf(*text, i)) << "token " << i;
      }
      return;
    }
    for (size_t i = 0; i < output.steps.size(); ++i) ASSERT_EQ(output.steps[i], i + 1);
    if (output.end.has_value()) {
      const PictureJob& picture = std::get<PictureJob>(job);
      ASSERT_EQ(output.picture, PictureOf(picture));
      ASSERT_EQ(output.score.has_value(), !picture.score_prompt.empty());
      if (output.score.has_value()) {
        ASSERT_EQ(*output.score, ScoreOf(picture));
      }
    }
  }

  // The usage is that of a run that nothing disturbed.
  void CheckUsage(const std::vector<SampleJob>& jobs, const RecordingSink& sink) {
    uint32_t steps = 0, pictures = 0, tokens = 0;
    for (size_t i = 0; i < jobs.size(); ++i) {
      tokens += sink.outputs[i].tokens.size();
      pictures += !sink.outputs[i].picture.empty();
      steps += sink.outputs[i].steps.size();
    }
    EXPECT_EQ(sink.usage.completion_tokens, tokens);
    EXPECT_EQ(sink.usage.pictures, pictures);
    EXPECT_EQ(sink.usage.steps, steps);
    if (sink.code() == absl::StatusCode::kOk) {
      EXPECT_GT(sink.usage.device_time, absl::Duration());
    }
    // Nobody is blamed for a death that it was not in.
    if (sink.code() == absl::StatusCode::kInternal) {
      EXPECT_GE(sink.usage.deaths, 2u);
    }
  }

  void CheckRequest(RequestId id) {
    ASSERT_TRUE(sink(id).status.has_value()) << "request " << id << " never ended";
    ASSERT_NO_FATAL_FAILURE(CheckUsage(jobs_[id - 1], sink(id)));
    EXPECT_LE(sink(id).late, jobs_[id - 1].size() * options_.steps_in_flight);
    for (size_t i = 0; i < jobs_[id - 1].size(); ++i) {
      ASSERT_NO_FATAL_FAILURE(ExpectPrefix(jobs_[id - 1][i], sink(id).outputs[i]));
      EXPECT_TRUE(sink(id).code() != absl::StatusCode::kOk || sink(id).outputs[i].end.has_value());
    }
    ++codes_[sink(id).code()];
  }

  void RunRandomly(uint32_t seed, int actions);

  std::mt19937 random_;
  std::vector<std::vector<SampleJob>> jobs_;
  std::set<FakeWorker*> gone_;
  std::map<absl::StatusCode, int> codes_;
};

void PropertyTest::RunRandomly(uint32_t seed, int actions) {
  random_.seed(seed);
  Observer log;
  options_.policy.policy = static_cast<Policy>(Draw(0, 2));
  options_.policy.slice = absl::Milliseconds(Draw(1, 20));
  options_.max_queued_requests = 12;
  options_.max_running_samples = Draw(1, 6);
  options_.max_picture_batch = Draw(1, 4);
  options_.prefill_chunk_tokens = Draw(1, 24);
  options_.steps_in_flight = Draw(1, 3);
  options_.save_interval_steps = Draw(1, 5);
  options_.max_parked = absl::Milliseconds(Draw(0, 100));
  options_.speculative_tokens = Chance(50) ? 0 : Draw(1, 9);
  options_.prefix_cache_bytes = Chance(40) ? 0 : Draw(1, 40);
  variants_ = Draw(1, 4);
  pages_ = Draw(16, 40);  // at least one context of 60 tokens
  batcher_ = std::make_unique<Batcher>(options_, &log, [] {});
  AddWorker();
  AddWorker();
  Tick();
  for (int i = 0; i < actions; ++i) Act();
  for (RequestId id = 1; id <= jobs_.size(); ++id) Release(id);
  RunToIdle();

  EXPECT_TRUE(batcher_->idle());
  for (RequestId id = 1; id <= jobs_.size(); ++id) ASSERT_NO_FATAL_FAILURE(CheckRequest(id));
  for (size_t i = 0; i < workers_.size(); ++i) {
    if (gone_.count(workers_[i].get())) continue;
    EXPECT_EQ(workers_[i]->samples(), 0u) << "worker " << i;
    EXPECT_EQ(log.pages[i], 0u) << "worker " << i;
  }
  for (const auto& [model, load] : log.load) EXPECT_EQ(load, 0u);
  // The run would prove nothing if every request were refused.
  EXPECT_GT(codes_[absl::StatusCode::kOk], static_cast<int>(jobs_.size()) / 8);
}

class SeededPropertyTest : public PropertyTest, public ::testing::WithParamInterface<uint32_t> {};

TEST_P(SeededPropertyTest, NothingIsLostOrWrong) { RunRandomly(GetParam(), 3000); }

INSTANTIATE_TEST_SUITE_P(Seeds, SeededPropertyTest, ::testing::Range(1u, 41u));

}  // namespace
}  // namespace hanmo::testing
