#include <gmock/gmock.h>

#include "server/batcher/testing/observed_fixture.h"

namespace hanmo::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DeadlinesTest : public ObservedTest {};

// Steps take 10 ms.
TEST_F(DeadlinesTest, RefusesADeadlineThatCantBeMetEvenAlone) {
  StartObserved();
  Submit(Picture(4));
  RunToIdle();
  const RequestId id = Submit(Picture(100), absl::Milliseconds(500));
  Tick();
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(sink(id).status->message()), HasSubstr("can't be met: alone"));
  EXPECT_THAT(log_.rejections, ElementsAre(Rejection::kDeadline));
}

TEST_F(DeadlinesTest, RefusesADeadlineThatCantBeMetBehindOthersAndSaysWhenToTryAgain) {
  StartObserved();
  Submit(Picture(4));
  RunToIdle();
  const RequestId first = Submit(Picture(100), absl::Milliseconds(1300));
  const RequestId second = Submit(Picture(100), absl::Milliseconds(1400));
  Tick();
  EXPECT_FALSE(sink(first).status.has_value());
  ASSERT_EQ(sink(second).code(), absl::StatusCode::kResourceExhausted);
  const auto after = sink(second).status->GetPayload(kRetryAfterMs);
  ASSERT_TRUE(after.has_value());
  EXPECT_GT(std::stoi(std::string(*after)), 100);
  EXPECT_LT(std::stoi(std::string(*after)), 2000);
}

TEST_F(DeadlinesTest, RefusesATextThatWouldWaitTooLongForAPlace) {
  options_.max_running_samples = 1;
  StartObserved();
  Submit(Text(3, 50));
  RunToIdle();
  const absl::Duration soon = absl::Milliseconds(1200);  // each takes 500 ms
  const RequestId runs = Submit(Text(3, 50), soon);
  Tick();
  std::vector<RequestId> waiting;
  for (int i = 0; i < 8; ++i) waiting.push_back(Submit(Text(3, 50), soon));
  Tick();
  EXPECT_FALSE(sink(runs).status.has_value());
  EXPECT_FALSE(sink(waiting[0]).status.has_value());
  EXPECT_EQ(sink(waiting[7]).code(), absl::StatusCode::kResourceExhausted);
  RunToIdle();
}

TEST_F(DeadlinesTest, LearnsHowMuchLongerRequestsTakeThanPredicted) {
  StartObserved();
  Submit(Picture(4));
  RunToIdle();
  const auto takes_in = [&](absl::Duration deadline) {
    const RequestId id = Submit(Picture(8), deadline);  // 10 steps with encoder and decoder: 100 ms
    Tick();
    const bool taken = !sink(id).status.has_value();
    while (!sink(id).status.has_value()) {
      now_ += absl::Milliseconds(15);  // the device tells 10
      Steps();
    }
    return taken;
  };
  EXPECT_TRUE(takes_in(absl::Milliseconds(120)));
  for (int i = 0; i < 100; ++i) takes_in(absl::Seconds(10));
  EXPECT_FALSE(takes_in(absl::Milliseconds(120)));
  EXPECT_TRUE(takes_in(absl::Milliseconds(180)));
}

TEST_F(DeadlinesTest, PaintsFewerStepsRatherThanMissADeadlineWhereTheClientConsents) {
  Start();
  Submit(Picture(10));
  RunToIdle();  // every step takes 10 ms: now that is known
  PictureJob job = Picture(50);
  job.min_steps = 5;
  const RequestId enough = Submit(job, absl::Seconds(10));
  RunToIdle();
  EXPECT_EQ(sink(enough).usage.granted_steps, 0u);
  EXPECT_EQ(sink(enough).usage.steps, 50u);
  // Alone it takes 52 steps, which a deadline of 0.8 times that would still let in.
  const RequestId shortened = Submit(job, absl::Milliseconds(240));
  RunToIdle();
  EXPECT_EQ(sink(shortened).code(), absl::StatusCode::kOk);
  EXPECT_EQ(sink(shortened).usage.granted_steps, 28u);  // (28 + 2) * 10 ms * 0.8 = 240 ms
  EXPECT_EQ(sink(shortened).usage.steps, 28u);
  PictureJob painted = job;
  painted.steps = 28;
  ExpectPicture(shortened, painted);
  job.min_steps = 29;
  const RequestId refused = Submit(job, absl::Milliseconds(240));
  job.min_steps = 0;
  const RequestId without = Submit(job, absl::Milliseconds(240));
  RunToIdle();
  EXPECT_EQ(sink(refused).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(sink(without).code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(DeadlinesTest, AClientThatLeavesAtItsDeadlineCountsAsLate) {
  StartObserved();
  const RequestId id = Submit(Text(3, 40), absl::Seconds(2));
  Steps(2);
  batcher_->Cancel(id, absl::DeadlineExceededError("the deadline passed"));
  Tick();
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(log_.missed_running, 1);
}

TEST_F(DeadlinesTest, AcceptsAnyDeadlineWhileNothingIsKnown) {
  Start();
  const RequestId id = Submit(Picture(100), absl::Milliseconds(1));
  Tick();
  EXPECT_FALSE(sink(id).status.has_value());
  batcher_->Cancel(id);
  Tick();
}

TEST_F(DeadlinesTest, ARequestIsBroughtForwardBeforeItsLatestStart) {
  Start();
  Submit(Picture(4));
  RunToIdle();
  options_.steps_in_flight = 1;
  // Ten short ones would go first all the time.
  const RequestId urgent = Submit(Picture(50), absl::Milliseconds(900));
  for (int i = 0; i < 100; ++i) Submit(Picture(4, 10 + i));
  for (int i = 0; i < 90 && !sink(urgent).status.has_value(); ++i) {
    now_ += absl::Milliseconds(10);
    Steps(1);
  }
  EXPECT_EQ(sink(urgent).code(), absl::StatusCode::kOk);
  RunToIdle();
}

TEST_F(DeadlinesTest, DeadlinesEndRequestsInTheQueueAndBetweenSteps) {
  options_.max_running_samples = 1;
  StartObserved();
  const RequestId running = Submit(Text(3, 40), absl::Seconds(2));
  const RequestId waiting = Submit(Text(3, 40), absl::Seconds(1));
  const RequestId late = Submit(Text(3, 40), absl::ZeroDuration());
  Steps(2);
  EXPECT_EQ(sink(late).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(log_.rejections, ElementsAre(Rejection::kDeadline));
  EXPECT_EQ(batcher_->NextDeadline(), now_ + absl::Seconds(1));
  now_ += absl::Seconds(1);
  Tick();
  EXPECT_EQ(sink(waiting).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(sink(waiting).usage.queue_time, absl::Seconds(1));
  EXPECT_FALSE(sink(running).status.has_value());
  EXPECT_EQ(batcher_->NextDeadline(), now_ + absl::Seconds(1));
  now_ += absl::Seconds(1);
  Tick();
  EXPECT_EQ(sink(running).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(batcher_->NextDeadline(), absl::InfiniteFuture());
  EXPECT_EQ(log_.missed_running, 1);
  EXPECT_EQ(log_.missed_queued, 1);
  EXPECT_TRUE(batcher_->idle());
}

}  // namespace
}  // namespace hanmo::testing
