#include <gmock/gmock.h>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Steps of the fake worker take 10 ms, or 10 ms a slice.
class SlicesTest : public BatcherTest {
 protected:
  void StartSliced(uint32_t slices = 3, absl::Duration slice = absl::Milliseconds(5)) {
    options_.policy.slice = slice;
    Start();
    workers_[0]->SetSlices(slices);
    // Learns what steps cost, whole.
    Submit(Picture(3));
    RunToIdle();
    NewSteps(*workers_[0]);
  }

  std::vector<Step> Denoising(const std::vector<Step>& steps) {
    std::vector<Step> found;
    for (const Step& step : steps) {
      if (step.kind == StepKind::kDenoise) found.push_back(step);
    }
    return found;
  }
};

TEST_F(SlicesTest, AStepIsNotCutBeforeItsCostIsKnown) {
  options_.policy.slice = absl::Milliseconds(5);
  Start();
  Submit(Picture(2));
  Tick();
  EXPECT_EQ(workers_[0]->steps().front().budget, absl::ZeroDuration());
}

TEST_F(SlicesTest, ALongStepIsCutAndEndsAsIfItWereNot) {
  StartSliced();
  const PictureJob job = Picture(6, 2);
  const RequestId id = Submit(job);
  RunToIdle();
  ExpectPicture(id, job);
  EXPECT_THAT(sink(id).outputs[0].steps, ElementsAre(1, 2, 3, 4, 5, 6));
  for (const Step& step : Denoising(NewSteps(*workers_[0]))) {
    EXPECT_EQ(step.budget, absl::Milliseconds(5));
  }
  EXPECT_FALSE(workers_[0]->resumes().empty());
  EXPECT_EQ(sink(id).usage.steps, 6u);
}

TEST_F(SlicesTest, WhatIsSavedIsTheStepThatWasCut) {
  options_.save_interval_steps = 2;
  StartSliced();
  const PictureJob job = Picture(6, 2);
  const RequestId id = Submit(job);
  // Until the first slice of the third step is back.
  while (sink(id).outputs[0].steps.size() < 2 || !workers_[0]->suspended().has_value()) Steps();
  FakeWorker& successor = Replace(*workers_[0]);
  RunToIdle();
  ExpectPicture(id, job);
  EXPECT_EQ(sink(id).usage.steps_redone, 0u);
  EXPECT_EQ(Denoising(successor.steps()).size(), 4u);
}

TEST_F(SlicesTest, AShortStepIsNotCut) {
  options_.policy.slice = absl::Milliseconds(7);
  Start();
  Submit(Picture(3));
  RunToIdle();
  NewSteps(*workers_[0]);
  Submit(Picture(3));
  RunToIdle();
  for (const Step& step : NewSteps(*workers_[0])) EXPECT_EQ(step.budget, absl::ZeroDuration());
}

TEST_F(SlicesTest, TheOtherPoliciesDoNotCut) {
  options_.policy.policy = Policy::kFcfs;
  StartSliced();
  Submit(Picture(3));
  RunToIdle();
  EXPECT_THAT(workers_[0]->resumes(), IsEmpty());
}

TEST_F(SlicesTest, TextsRunBetweenTheSlices) {
  StartSliced(8);
  const PictureJob picture = Picture(3, 2);
  const TextJob text = Text(3, 20, 3);
  const RequestId painted = Submit(picture);
  Steps(2);
  ASSERT_TRUE(workers_[0]->suspended().has_value());
  const uint64_t step = *workers_[0]->suspended();
  const RequestId written = Submit(text);
  size_t tokens = 0;
  while (workers_[0]->suspended() == step) {
    tokens = sink(written).outputs[0].tokens.size();
    Steps(1);
  }
  EXPECT_GE(tokens, 3u);
  RunToIdle();
  ExpectPicture(painted, picture);
  ExpectTokens(written, text, 20);
}

TEST_F(SlicesTest, NoSliceIsLongerThanAskedForHoweverSmallItsShare) {
  options_.policy.text_share = 0.95;
  StartSliced(8, absl::Milliseconds(2));
  Submit(Text(3, 40, 3));
  Steps(2);
  Submit(Picture(3, 2));
  RunToIdle();
  const std::vector<Step> steps = Denoising(NewSteps(*workers_[0]));
  ASSERT_FALSE(steps.empty());
  for (const Step& step : steps) EXPECT_EQ(step.budget, absl::Milliseconds(2));
}

TEST_F(SlicesTest, TextsOfTwoModelsTakeTurnsSoASliceIsNoLonger) {
  options_.policy.text_share = 0.625;
  StartSliced(8, absl::Milliseconds(8));
  Submit(Text(3, 60, 3));
  text_model_ = kOtherText;
  Submit(Text(3, 60, 4));
  Steps(4);
  Submit(Picture(3, 2));
  RunToIdle();
  const std::vector<Step> steps = Denoising(NewSteps(*workers_[0]));
  ASSERT_FALSE(steps.empty());
  // Three fifths of a step of either, which take 10 ms.
  for (const Step& step : steps) EXPECT_NEAR(absl::ToDoubleMilliseconds(step.budget), 6, 0.001);
}

TEST_F(SlicesTest, ACancelledStepIsAbandonedAndAnotherBegins) {
  StartSliced(100);
  const RequestId first = Submit(Picture(3, 2));
  Steps(3);
  ASSERT_TRUE(workers_[0]->suspended().has_value());
  const uint64_t step = *workers_[0]->suspended();
  batcher_->Cancel(first);
  workers_[0]->SetSlices(2);
  const PictureJob job = Picture(2, 3);
  const RequestId second = Submit(job);
  Steps(3);
  EXPECT_NE(workers_[0]->suspended(), step);
  RunToIdle();
  EXPECT_EQ(sink(first).code(), absl::StatusCode::kCancelled);
  ExpectPicture(second, job);
}

TEST_F(SlicesTest, AnAbandonedStepIsNotReportedAsFailed) {
  struct Observer : BatcherObserver {
    void OnStep(WorkerId, const Step&, const StepResult& result) override {
      (result.status.ok() ? done : failed)++;
    }
    int done = 0, failed = 0;
  } log;
  options_.policy.slice = absl::Milliseconds(5);
  batcher_ = std::make_unique<Batcher>(options_, &log, [] {});
  AddWorker();
  Tick();
  workers_[0]->SetSlices(3);
  Submit(Picture(3));
  RunToIdle();
  EXPECT_GT(log.done, 0);
  // With a slice sent ahead, and without.
  for (int steps = 1; steps < 8; ++steps) {
    workers_[0]->SetSlices(100);
    const RequestId id = Submit(Picture(3, 2));
    Steps(steps);
    batcher_->Cancel(id);
    workers_[0]->SetSlices(2);
    Submit(Picture(2, 3));
    RunToIdle();
  }
  EXPECT_EQ(log.failed, 0);
  batcher_ = nullptr;  // before its observer
}

TEST_F(SlicesTest, ADeadlineEndsTheRequestBetweenTwoSlices) {
  StartSliced(100);
  const RequestId id = Submit(Picture(3, 2), absl::Milliseconds(200));
  Steps(3);
  ASSERT_TRUE(workers_[0]->suspended().has_value());
  now_ += absl::Milliseconds(201);
  Steps(3);
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(workers_[0]->suspended().has_value());
}

TEST_F(SlicesTest, WhatIsLearnedIsTheWholeStep) {
  StartSliced(10);  // 100 ms
  Submit(Picture(3, 2));
  RunToIdle();
  // In one slice again, but predicted to be long: cut nevertheless, until it is known better.
  workers_[0]->SetSlices(1);
  Submit(Picture(1, 3));
  Steps(2);
  EXPECT_GT(workers_[0]->steps_waiting(), 1u) << "a slice more is sent ahead";
  RunToIdle();
}

TEST_F(SlicesTest, ASuspendedStepIsSuspectedOfADeath) {
  StartSliced(100);
  const PictureJob job = Picture(3, 2);
  const RequestId id = Submit(job);
  Steps(3);
  ASSERT_TRUE(workers_[0]->suspended().has_value());
  Replace(*workers_[0]);
  RunToIdle();
  EXPECT_EQ(sink(id).usage.deaths, 1u);
  ExpectPicture(id, job);
}

TEST_F(SlicesTest, AWorkerThatLosesASuspendedStepFailsIt) {
  StartSliced(100);
  options_.steps_in_flight = 1;
  const RequestId id = Submit(Picture(3, 2));
  Steps(3);
  ASSERT_TRUE(workers_[0]->suspended().has_value());
  const uint64_t step = *workers_[0]->suspended();
  for (int i = 0; i < 4; ++i) {
    StepResult lost;
    lost.step = step;
    lost.already_done = true;
    batcher_->StepDone(0, std::move(lost));
    Tick();
  }
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace hanmo::testing
