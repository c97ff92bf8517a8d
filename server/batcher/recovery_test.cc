#include <gmock/gmock.h>

#include <algorithm>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

class RecoveryTest : public BatcherTest {};

TEST_F(RecoveryTest, TextsGoOnWithTheSameTokens) {
  Start();
  const TextJob a = Text(7, 20, 1), b = Text(3, 20, 2);
  const RequestId first = Submit(a), second = Submit(b);
  Steps(8);
  Replace(*workers_[0]);
  RunToIdle();
  ExpectTokens(first, a, 20);
  ExpectTokens(second, b, 20);
  EXPECT_EQ(sink(first).usage.deaths, 1u);
  EXPECT_EQ(sink(first).usage.completion_tokens, 20u);
}

TEST_F(RecoveryTest, PicturesGoOnFromTheirSavePoint) {
  options_.save_interval_steps = 5;
  Start();
  const PictureJob job = Picture(20);
  const RequestId id = Submit(job);
  Tick();
  Steps(14);  // encoded, 13 steps; saved at 10
  ASSERT_EQ(sink(id).outputs[0].steps.back(), 13u);
  FakeWorker& successor = Replace(*workers_[0]);
  RunToIdle();
  ExpectPicture(id, job);
  // Encoded again, steps 11 to 20, decoded.
  EXPECT_THAT(successor.steps(), SizeIs(1 + 10 + 1));
  EXPECT_EQ(sink(id).usage.steps, 20u);
  EXPECT_EQ(sink(id).usage.steps_redone, 3u);
  for (uint32_t i = 0; i < 20; ++i) EXPECT_EQ(sink(id).outputs[0].steps[i], i + 1);
}

TEST_F(RecoveryTest, PreviewsAreNotPaintedAgain) {
  Start();
  PictureJob job = Picture(9);
  job.preview_every_steps = 2;
  const RequestId id = Submit(job);
  Steps(6);  // encoded, 4 to 5 steps
  const size_t before = sink(id).previews.size();
  ASSERT_GE(before, 2u);
  FakeWorker& successor = Replace(*workers_[0]);
  RunToIdle();
  EXPECT_THAT(sink(id).previews, ElementsAre(2, 4, 6, 8));
  size_t asked = 0;
  for (const Step& step : successor.steps()) asked += step.rows[0].preview;
  EXPECT_EQ(asked, 4 - before);
}

TEST_F(RecoveryTest, SuspectedPicturesTakeTurnsAndJoinTheOthersAgain) {
  options_.save_interval_steps = 100;
  Start();
  const PictureJob a = Picture(20, 1), b = Picture(20, 2);
  const RequestId first = Submit(a), second = Submit(b);
  Steps(8);
  FakeWorker& successor = Replace(*workers_[0]);
  const RequestId text = Submit(Text(3, 40, 3));
  Steps(12);
  EXPECT_GE(sink(text).outputs[0].tokens.size(), 3u) << "suspects starve the others";
  RunToIdle();
  ExpectPicture(first, a);
  ExpectPicture(second, b);
  size_t shared = 0;
  for (const Step& step : successor.steps()) shared += step.rows.size() == 2;
  EXPECT_GE(shared, 5u) << "they are suspected for ever";
}

TEST_F(RecoveryTest, AResultForOtherRowsFailsTheStep) {
  Start();
  const RequestId id = Submit(Text(3, 6, 1));
  Tick();
  StepResult result;
  result.step = 1;
  result.rows.resize(1);
  result.rows[0].sample = 12345;
  batcher_->StepDone(0, std::move(result));
  Tick();
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kInternal);
}

TEST_F(RecoveryTest, SuspectsRunAloneUntilTheyArePastThePlace) {
  Start();
  const TextJob a = Text(3, 20, 1), b = Text(3, 20, 2), fresh = Text(3, 20, 3);
  const RequestId first = Submit(a), second = Submit(b);
  Steps(5);
  FakeWorker& successor = Replace(*workers_[0]);
  const RequestId third = Submit(fresh);
  Tick();
  // Nothing is sent beside a suspect's step.
  EXPECT_EQ(successor.steps_waiting(), 1u);
  RunToIdle();
  ExpectTokens(first, a, 20);
  ExpectTokens(second, b, 20);
  ExpectTokens(third, fresh, 20);
  const auto& steps = successor.steps();
  size_t alone = 0;
  while (alone < steps.size() && steps[alone].rows.size() == 1) ++alone;
  EXPECT_GE(alone, 4u);   // each at least past the two steps that were under way
  EXPECT_LE(alone, 10u);  // but not for ever
  EXPECT_EQ(steps.back().rows.size(), 1u);
  EXPECT_EQ(steps[alone].rows.size(), 3u);
}

TEST_F(RecoveryTest, ThePoisonousRequestEndsAndTheOthersFinish) {
  Start();
  const TextJob good = Text(3, 12, 1), bad = Text(3, 12, 666), later = Text(3, 12, 3);
  const RequestId first = Submit(good), poison = Submit(bad);
  FakeWorker* worker = workers_[0].get();
  worker->DieOnSeed(666);
  Tick();
  int deaths = 0;
  RequestId third = 0;
  for (int i = 0; i < 200 && !batcher_->idle(); ++i) {
    worker->RunStep();
    if (worker->dead()) {
      ++deaths;
      worker = &Replace(*worker);
      worker->DieOnSeed(666);
      if (third == 0) third = Submit(later);
    }
    Tick();
  }
  EXPECT_EQ(deaths, 2);
  EXPECT_EQ(sink(poison).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(sink(poison).usage.deaths, 2u);
  ExpectTokens(first, good, 12);
  EXPECT_EQ(sink(first).code(), absl::StatusCode::kOk);
  EXPECT_EQ(sink(first).usage.deaths, 1u);
  ExpectTokens(third, later, 12);
}

TEST_F(RecoveryTest, WorkersThatDieTogetherCountOnce) {
  Start();
  AddWorker();
  // One request on both workers, and others.
  const TextJob a = Text(3, 20, 1), b = Text(3, 20, 2);
  std::vector<RequestId> ids = {Submit({a, b}), Submit(a), Submit(b)};
  Steps(4);
  // The second death is noticed when the samples of the first have found a place already.
  batcher_->WorkerLost(0);
  Tick();
  batcher_->WorkerLost(1);
  Tick();
  AddWorker();
  AddWorker();
  RunToIdle();
  ExpectTokens(ids[0], a, 20, 0);
  ExpectTokens(ids[0], b, 20, 1);
  ExpectTokens(ids[1], a, 20);
  ExpectTokens(ids[2], b, 20);
  for (RequestId id : ids) EXPECT_EQ(sink(id).code(), absl::StatusCode::kOk);
}

TEST_F(RecoveryTest, SuspectsMoveToAWorkerThatIsKnownToLive) {
  Start();
  FakeWorker& other = AddWorker();
  const TextJob job = Text(3, 20, 1);
  const RequestId id = Submit(job), busy = Submit(Text(3, 40, 2));
  Steps(3);
  batcher_->WorkerLost(0);
  Tick();
  // Its steps in flight say nothing: they may have been done before.
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(other.RunStep());
    Tick();
  }
  std::set<SampleHandle> samples;
  for (const Step& step : other.steps()) {
    for (const Row& row : step.rows) samples.insert(row.sample);
  }
  EXPECT_THAT(samples, SizeIs(1));
  // Its step goes down when those of the other one are back, and nothing beside it.
  while (samples.count(other.steps().back().rows[0].sample) != 0) {
    ASSERT_TRUE(other.RunStep());
    Tick();
  }
  EXPECT_EQ(other.steps_waiting(), 1u);
  RunToIdle();
  ExpectTokens(id, job, 20);
  EXPECT_EQ(sink(busy).code(), absl::StatusCode::kOk);
}

TEST_F(RecoveryTest, AnIdleWorkerIsTrustedAfterASecond) {
  Start();
  FakeWorker& other = AddWorker();
  const TextJob job = Text(3, 20, 1);
  const RequestId id = Submit(job);
  Steps(3);
  batcher_->WorkerLost(0);
  Tick();
  EXPECT_EQ(other.steps_waiting(), 0u);
  EXPECT_EQ(batcher_->NextDeadline(), now_ + absl::Seconds(1));
  now_ += absl::Seconds(1);
  RunToIdle();
  ExpectTokens(id, job, 20);
}

TEST_F(RecoveryTest, APoisonousRequestOfSeveralSamplesEndsAtItsSecondDeath) {
  options_.max_picture_batch = 2;
  Start();
  const RequestId poison =
      Submit({Picture(9, 666), Picture(9, 666), Picture(9, 666), Picture(9, 666)});
  FakeWorker* worker = workers_[0].get();
  for (int deaths = 1; deaths <= 2; ++deaths) {
    worker->DieOnSeed(666);
    EXPECT_FALSE(sink(poison).status.has_value());
    Tick();
    ASSERT_FALSE(worker->RunStep());
    worker = &Replace(*worker);
  }
  EXPECT_EQ(sink(poison).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(sink(poison).usage.deaths, 2u);
}

TEST_F(RecoveryTest, ASlowReadersSampleComesBackWhenItReads) {
  Start();
  const TextJob job = Text(3, 30, 1);
  const RequestId id = Submit(job);
  Steps(4);
  sink(id).is_full = true;
  Tick();
  FakeWorker& successor = Replace(*workers_[0]);
  RunToIdle();
  EXPECT_TRUE(successor.steps().empty()) << "begun again for a reader that is still slow";
  sink(id).is_full = false;
  batcher_->Wake(id);
  RunToIdle();
  ExpectTokens(id, job, 30);
}

TEST_F(RecoveryTest, WhoWasNotInAStepIsNotSuspected) {
  options_.policy.policy = Policy::kFcfs;
  options_.steps_in_flight = 1;
  Start();
  // The picture's step is under way; the text waits for its turn.
  const PictureJob picture = Picture(6);
  const TextJob text = Text(3, 6);
  const RequestId painted = Submit(picture), written = Submit(text);
  Tick();
  ASSERT_EQ(workers_[0]->steps().back().kind, StepKind::kTextEncode);
  Replace(*workers_[0]);
  RunToIdle();
  ExpectPicture(painted, picture);
  ExpectTokens(written, text, 6);
  EXPECT_EQ(sink(painted).usage.deaths, 1u);
  EXPECT_EQ(sink(written).usage.deaths, 0u);
}

TEST_F(RecoveryTest, AFailedStepIsSplitAndRetried) {
  Start();
  const PictureJob a = Picture(5, 1), b = Picture(5, 2);
  const RequestId first = Submit(a), second = Submit(b);
  Steps(3);
  workers_[0]->FailNextStep(absl::ResourceExhaustedError("out of memory"));
  RunToIdle();
  ExpectPicture(first, a);
  ExpectPicture(second, b);
  EXPECT_EQ(sink(first).code(), absl::StatusCode::kOk);
  EXPECT_EQ(sink(second).code(), absl::StatusCode::kOk);
  EXPECT_EQ(sink(first).usage.deaths, 0u);
}

TEST_F(RecoveryTest, AStepOfOneThatFailsEndsItsRequestWithItsStatus) {
  Start();
  const TextJob other = Text(3, 8, 2);
  const RequestId id = Submit(Picture(5, 1));
  Steps(3);
  workers_[0]->FailNextStep(absl::ResourceExhaustedError("out of memory"));
  Steps(2);
  const RequestId next = Submit(other);
  RunToIdle();
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kResourceExhausted);
  ExpectTokens(next, other, 8);
  EXPECT_EQ(workers_[0]->samples(), 0u);
}

TEST_F(RecoveryTest, ABatchThatNeverFitsEndsUpOneByOne) {
  Start();
  workers_[0]->FailAbove(1);
  std::vector<TextJob> jobs;
  for (int i = 0; i < 4; ++i) jobs.push_back(Text(3 + i, 10, i));
  for (const TextJob& job : jobs) Submit(job);
  RunToIdle();
  for (RequestId id = 1; id <= 4; ++id) ExpectTokens(id, jobs[id - 1], 10);
}

TEST_F(RecoveryTest, BatchesStayWithinTheMemoryThatIsFree) {
  options_.policy.policy = Policy::kStatic;  // batches as large as they may be
  Start();
  uint64_t seed = 0;
  const auto largest_batch = [&] {
    Submit(Picture(6, ++seed));  // after it the memory is known
    RunToIdle();
    NewSteps(*workers_[0]);
    for (int i = 0; i < 8; ++i) Submit(Picture(6, ++seed));
    RunToIdle();
    size_t most = 0;
    for (const Step& step : NewSteps(*workers_[0])) most = std::max(most, step.rows.size());
    return most;
  };
  workers_[0]->SetMemory(100, 450);
  EXPECT_EQ(largest_batch(), 4u) << "of 450 bytes a tenth is left for others";
  workers_[0]->SetMemory(100, 0);
  EXPECT_EQ(largest_batch(), 4u) << "nothing new is told";
  workers_[0]->SetMemory(100, 900);
  EXPECT_EQ(largest_batch(), 8u) << "there is more now";
}

TEST_F(RecoveryTest, ABatchTooLargeForTheMemoryIsHalvedAndThatIsRemembered) {
  options_.policy.policy = Policy::kStatic;  // batches as large as they may be
  Start();
  workers_[0]->FailAbove(2);
  std::vector<PictureJob> jobs;
  for (int i = 0; i < 8; ++i) jobs.push_back(Picture(6, i));
  for (const PictureJob& job : jobs) Submit(job);
  RunToIdle();
  for (RequestId id = 1; id <= 8; ++id) ExpectPicture(id, jobs[id - 1]);
  const auto too_large = [](const std::vector<Step>& steps) {
    return std::count_if(steps.begin(), steps.end(),
                         [](const Step& step) { return step.rows.size() > 2; });
  };
  const auto shared = [](const std::vector<Step>& steps) {
    return std::count_if(steps.begin(), steps.end(),
                         [](const Step& step) { return step.rows.size() == 2; });
  };
  // Of each kind of step 8 and 4 samples at once, and what was under way with them.
  const std::vector<Step> first = NewSteps(*workers_[0]);
  EXPECT_LE(too_large(first), 3 * 4);
  EXPECT_GT(shared(first), 12) << "nobody is suspected";
  for (int i = 0; i < 8; ++i) Submit(Picture(6, 100 + i));
  RunToIdle();
  for (RequestId id = 9; id <= 16; ++id) EXPECT_EQ(sink(id).code(), absl::StatusCode::kOk);
  EXPECT_EQ(too_large(NewSteps(*workers_[0])), 0) << "it was forgotten";
  // Another size is another shape.
  for (int i = 0; i < 4; ++i) Submit(Picture(6, 200 + i, 128));
  RunToIdle();
  EXPECT_GT(too_large(NewSteps(*workers_[0])), 0);
}

TEST_F(RecoveryTest, AChunkOfAPromptTooLargeForTheMemoryIsCutAndThatIsRemembered) {
  pages_ = 256;
  Start();
  workers_[0]->FailAbovePrefill(40);
  const auto too_large = [](const std::vector<Step>& steps) {
    return std::count_if(steps.begin(), steps.end(), [](const Step& step) {
      return std::any_of(step.rows.begin(), step.rows.end(),
                         [](const Row& row) { return row.prefill_tokens > 40; });
    });
  };
  std::vector<TextJob> jobs;
  for (int i = 0; i < 4; ++i) jobs.push_back(Text(i == 2 ? 200 : 5, 10, i));
  for (const TextJob& job : jobs) Submit(job);
  RunToIdle();
  for (RequestId id = 1; id <= 4; ++id) ExpectTokens(id, jobs[id - 1], 10);
  const std::vector<Step> first = NewSteps(*workers_[0]);
  EXPECT_GT(too_large(first), 0);
  EXPECT_TRUE(std::any_of(first.begin(), first.end(), [](const Step& step) {
    return step.rows.size() > 2;
  })) << "texts still share their steps";
  const TextJob again = Text(200, 10, 9);
  const RequestId id = Submit(again);
  RunToIdle();
  ExpectTokens(id, again, 10);
  EXPECT_EQ(too_large(NewSteps(*workers_[0])), 0);
}

TEST_F(RecoveryTest, APromptThatNeverFitsEndsWithTheWorkersError) {
  pages_ = 256;
  Start();
  workers_[0]->FailAbovePrefill(5);
  const TextJob fits = Text(5, 10);
  const RequestId small = Submit(fits), large = Submit(Text(200, 10));
  RunToIdle();
  ExpectTokens(small, fits, 10);
  EXPECT_EQ(sink(large).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(RecoveryTest, ARowThatFailsTakesNobodyAlong) {
  Start();
  const TextJob good = Text(3, 6, 1);
  const RequestId first = Submit(good), second = Submit(Text(3, 6, 13));
  workers_[0]->FailRowOfSeed(13);
  RunToIdle();
  ExpectTokens(first, good, 6);
  EXPECT_EQ(sink(second).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(workers_[0]->samples(), 0u);
}

TEST_F(RecoveryTest, AWorkerThatLosesAStepIsNotWaitedFor) {
  Start();
  const TextJob job = Text(3, 6, 1);
  const RequestId id = Submit(job);
  Tick();
  StepResult result;
  result.step = 2;  // the first never came
  result.rows.resize(1);
  batcher_->StepDone(0, std::move(result));
  Tick();
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(batcher_->idle());
}

TEST_F(RecoveryTest, ResultsOfTheDeadAreIgnored) {
  Start();
  const TextJob job = Text(3, 6, 1);
  const RequestId id = Submit(job);
  Steps(2);
  batcher_->WorkerLost(0);
  workers_[0]->RunStep();  // came in after all
  Tick();
  AddWorker();
  RunToIdle();
  ExpectTokens(id, job, 6);
}

}  // namespace
}  // namespace hanmo::testing
