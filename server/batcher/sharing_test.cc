// Shared pages and guessed tokens: what the workers are told, and that no text notices.
#include <algorithm>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {
namespace {

class SharingTest : public BatcherTest {
 protected:
  struct Observer : BatcherObserver {
    void OnPrefixHit(ModelId, uint32_t tokens) override { hits += tokens; }
    void OnPages(WorkerId, ModelId, uint32_t now, uint32_t of) override {
      used = now;
      total = of;
    }
    uint32_t hits = 0;
    uint32_t used = 0;
    uint32_t total = 0;
  };

  SharingTest() { options_.prefix_cache_bytes = 64; }

  void Start() {
    batcher_ = std::make_unique<Batcher>(options_, &log_, [] {});
    AddWorker();
    Tick();
  }
  FakeWorker& worker() { return *workers_.back(); }

  // Prompt tokens that the steps since the last call ran.
  uint32_t Prefilled(FakeWorker& worker) {
    uint32_t tokens = 0;
    for (const Step& step : NewSteps(worker)) {
      for (const Row& row : step.rows) tokens += row.prefill_tokens;
    }
    return tokens;
  }

  Observer log_;
};

TEST_F(SharingTest, ADeadWorkerHasNoPagesInUse) {
  Start();
  Submit(Text(7, 20));
  Steps(3);
  EXPECT_GT(log_.used, 0u);
  batcher_->WorkerLost(0);
  Tick();
  EXPECT_EQ(log_.used, 0u);
  EXPECT_EQ(log_.total, 0u);
  AddWorker();
  RunToIdle();
  EXPECT_EQ(log_.total, pages_);
  // Its successor says that it is there, though nothing runs on it.
  batcher_->WorkerLost(1);
  Tick();
  AddWorker();
  Tick();
  EXPECT_EQ(log_.total, pages_);
}

TEST_F(SharingTest, ATextThatBeginsAlikeRunsOnlyTheRest) {
  Start();
  const TextJob first = Text(18, 3, 1), second = Text(21, 5, 2);
  const RequestId a = Submit(first);
  RunToIdle();
  EXPECT_EQ(Prefilled(worker()), 18u);
  const RequestId b = Submit(second);
  RunToIdle();
  EXPECT_EQ(Prefilled(worker()), 5u);  // 16 of 21 lie in whole pages
  ExpectTokens(a, first, 3);
  ExpectTokens(b, second, 5);
  EXPECT_EQ(sink(a).usage.cached_prompt_tokens, 0u);
  EXPECT_EQ(sink(b).usage.cached_prompt_tokens, 16u);
  EXPECT_EQ(sink(b).usage.prompt_tokens, 21u);
  EXPECT_EQ(log_.hits, 16u);
  EXPECT_EQ(log_.used, 0u);  // kept pages count as free
}

TEST_F(SharingTest, TheSameTextAgainRunsItsLastTokens) {
  Start();
  const TextJob job = Text(16, 2);
  Submit(job);
  RunToIdle();
  NewSteps(worker());
  const RequestId b = Submit(job);
  RunToIdle();
  EXPECT_EQ(Prefilled(worker()), 4u);
  ExpectTokens(b, job, 2);
}

TEST_F(SharingTest, WhatATextWroteIsSharedToo) {
  Start();
  const TextJob first = Text(6, 11);
  const RequestId a = Submit(first);
  RunToIdle();
  NewSteps(worker());
  // A dialogue goes on: prompt and answer are the next prompt. All but the last token were run.
  TextJob next = first;
  for (uint32_t token : sink(a).outputs[0].tokens) next.prompt.push_back(token);
  next.prompt.push_back(5);
  const RequestId b = Submit(next);
  RunToIdle();
  EXPECT_EQ(Prefilled(worker()), 2u);
  ExpectTokens(b, next, 11);
}

TEST_F(SharingTest, SamplesOfOneRequestPrefillThePromptOnce) {
  Start();
  std::vector<SampleJob> jobs;
  for (uint32_t i = 0; i < 4; ++i) jobs.push_back(Text(17, 4, i));
  const RequestId id = Submit(jobs);
  RunToIdle();
  EXPECT_EQ(Prefilled(worker()), 17u + 3 * 1);
  for (uint32_t i = 0; i < 4; ++i) ExpectTokens(id, std::get<TextJob>(jobs[i]), 4, i);
  EXPECT_EQ(sink(id).usage.cached_prompt_tokens, 0u);
}

TEST_F(SharingTest, WhoWaitsForAPageThatIsBeingRunWaitsNoLonger) {
  options_.prefill_chunk_tokens = 8;
  options_.steps_in_flight = 1;
  Start();
  const TextJob first = Text(30, 2);
  TextJob second = first;
  second.prompt[9] = 77;  // two pages alike
  Submit(first);
  Tick();
  const RequestId b = Submit(second);
  Tick();
  EXPECT_EQ(worker().samples(), 0u);  // its Begin has not run yet
  Steps(1);
  // The first step published both pages; the second text is begun after them.
  Steps(1);
  EXPECT_EQ(worker().samples(), 2u);
  RunToIdle();
  EXPECT_EQ(log_.hits, 8u);
  ExpectTokens(b, second, 2);
}

TEST_F(SharingTest, AParkedTextHoldsNobodyUp) {
  options_.prefill_chunk_tokens = 4;
  Start();
  const RequestId a = Submit(Text(30, 2));
  Tick();
  sink(a).is_full = true;
  batcher_->Wake(a);
  const RequestId b = Submit(Text(30, 2, 2));
  for (int i = 0; i < 12; ++i) Steps(1);
  EXPECT_EQ(sink(b).code(), absl::StatusCode::kOk);
  sink(a).is_full = false;
  batcher_->Wake(a);
  RunToIdle();
  EXPECT_EQ(sink(a).code(), absl::StatusCode::kOk);
}

TEST_F(SharingTest, TenantsShareNothing) {
  Start();
  tenant_ = "one";
  Submit(Text(18, 2));
  RunToIdle();
  tenant_ = "two";
  Submit(Text(18, 2));
  RunToIdle();
  EXPECT_EQ(log_.hits, 0u);
  tenant_ = "one";
  Submit(Text(18, 2));
  RunToIdle();
  EXPECT_EQ(log_.hits, 16u);
}

TEST_F(SharingTest, KeptPagesMakeRoomForTexts) {
  pages_ = 12;
  Start();
  Submit(Text(40, 2));
  RunToIdle();
  TextJob other = Text(40, 2);
  other.prompt[0] = 77;
  const RequestId b = Submit(other);
  RunToIdle();
  ExpectTokens(b, other, 2);
  EXPECT_EQ(log_.hits, 0u);
}

TEST_F(SharingTest, WithoutBytesNothingIsKept) {
  options_.prefix_cache_bytes = 0;
  Start();
  Submit(Text(18, 2));
  RunToIdle();
  Submit(Text(18, 2));
  RunToIdle();
  EXPECT_EQ(log_.hits, 0u);
}

TEST_F(SharingTest, ANewWorkerHasNothingToShareAndTheTextGoesOn) {
  options_.speculative_tokens = 4;
  Start();
  const TextJob job = Text(18, 20);
  Submit(Text(18, 1, 9));
  RunToIdle();
  const RequestId a = Submit(job);
  Steps(3);
  EXPECT_EQ(log_.hits, 16u);
  ASSERT_LT(sink(a).outputs[0].tokens.size(), 20u);
  FakeWorker& successor = Replace(worker());
  RunToIdle();
  EXPECT_EQ(successor.shared_tokens(), 0u);
  ExpectTokens(a, job, 20);
}

TEST_F(SharingTest, OfTwoWorkersTheOneWithThePagesIsTaken) {
  Start();
  AddWorker();
  Tick();
  TextJob other = Text(33, 20);
  other.prompt[0] = 77;
  Submit(other);
  Tick();
  Submit(Text(33, 2));  // to the second worker: the first has something to do
  RunToIdle();
  ASSERT_FALSE(NewSteps(*workers_[1]).empty());
  Submit(Text(33, 2));
  RunToIdle();
  EXPECT_EQ(workers_[1]->shared_tokens(), 32u);
  // Without a reason, to the first.
  other.prompt[0] = 78;
  NewSteps(*workers_[0]);
  Submit(other);
  RunToIdle();
  EXPECT_FALSE(NewSteps(*workers_[0]).empty());
}

TEST_F(SharingTest, GuessesSaveStepsAndChangeNothing) {
  options_.speculative_tokens = 6;
  Start();
  const TextJob job = Text(5, 40);
  const RequestId id = Submit(job);
  RunToIdle();
  ExpectTokens(id, job, 40);
  EXPECT_EQ(sink(id).usage.completion_tokens, 40u);
  const std::vector<Step> steps = NewSteps(worker());
  EXPECT_EQ(steps[0].rows[0].draft_tokens, 0u);  // the prompt
  EXPECT_EQ(steps[1].rows[0].draft_tokens, 6u);
  EXPECT_GT(worker().guessed_right(), 10u);
  EXPECT_LE(steps.size(), 41 - worker().guessed_right() + 1);
}

TEST_F(SharingTest, GuessesStopWhereTheTextDoes) {
  options_.speculative_tokens = 6;
  Start();
  TextJob job = Text(5, 40);
  job.stop_token_ids = {TokenOf(job, 13)};
  const RequestId a = Submit(job);
  const TextJob one = Text(5, 1), two = Text(5, 2);
  const RequestId b = Submit(one), c = Submit(two);
  RunToIdle();
  ExpectTokens(a, job, 14);
  ExpectTokens(b, one, 1);
  ExpectTokens(c, two, 2);
}

TEST_F(SharingTest, NoRowIsSentThatHasNothingLeftToWrite) {
  options_.speculative_tokens = 6;
  options_.steps_in_flight = 3;
  Start();
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const RequestId id = Submit(Text(5, 12, seed));
    Tick();
    while (!sink(id).status.has_value()) {
      const size_t under_way = worker().steps_waiting();
      Steps(1);
      // Each row writes at least one token; some may be too many when others wrote more.
      const size_t left = 12 - sink(id).outputs[0].tokens.size();
      ASSERT_LE(worker().steps_waiting(), std::max(left, under_way - 1));
    }
    RunToIdle();
  }
}

TEST_F(SharingTest, AGuessTakesNobodysPage) {
  options_.speculative_tokens = 9;
  pages_ = 8;
  Start();
  // Each needs 4 pages in the end: nobody has to make room, with guesses or without.
  std::vector<TextJob> jobs = {Text(6, 11, 1), Text(7, 10, 2)};
  std::vector<RequestId> ids;
  for (const TextJob& job : jobs) ids.push_back(Submit(job));
  RunToIdle();
  EXPECT_EQ(worker().dropped().size(), 2u);
  for (size_t i = 0; i < jobs.size(); ++i) ExpectTokens(ids[i], jobs[i], jobs[i].max_tokens);
}

TEST_F(SharingTest, ASuspectGuessesNothing) {
  options_.speculative_tokens = 6;
  options_.steps_in_flight = 1;
  Start();
  const TextJob job = Text(5, 30);
  const RequestId id = Submit(job);
  Steps(2);
  const size_t before = sink(id).outputs[0].tokens.size();
  FakeWorker& successor = Replace(worker());
  NewSteps(successor);
  Steps(1);
  for (const Step& step : NewSteps(successor)) EXPECT_EQ(step.rows[0].draft_tokens, 0u);
  RunToIdle();
  EXPECT_GE(before, 1u);
  ExpectTokens(id, job, 30);
}

}  // namespace
}  // namespace hanmo::testing
