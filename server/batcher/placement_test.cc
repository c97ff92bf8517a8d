// Which sample has a place and pages on which worker, and who gives them back.
#include <gmock/gmock.h>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {
namespace {

using ::testing::SizeIs;

class PlacementTest : public BatcherTest {};

TEST_F(PlacementTest, SamplesGoToTheWorkerWithFewest) {
  Start();
  AddWorker();
  for (int i = 0; i < 6; ++i) Submit(Text(3, 10, i));
  Tick();
  EXPECT_EQ(workers_[0]->steps()[0].rows.size(), 3u);
  EXPECT_EQ(workers_[1]->steps()[0].rows.size(), 3u);
  RunToIdle();
  for (RequestId id = 1; id <= 6; ++id) ExpectTokens(id, Text(3, 10, id - 1), 10);
}

TEST_F(PlacementTest, TheYoungestTextMakesRoomWhenPagesRunOut) {
  struct Preemptions : BatcherObserver {
    void OnPreempted(ModelId) override { ++count; }
    int count = 0;
  } preemptions;
  pages_ = 10;  // 40 tokens
  batcher_ = std::make_unique<Batcher>(options_, &preemptions, [] {});
  AddWorker();
  Tick();
  const TextJob a = Text(4, 24, 1), b = Text(4, 24, 2);
  const RequestId first = Submit(a);
  Tick();
  const RequestId second = Submit(b);
  RunToIdle();
  ExpectTokens(first, a, 24);
  ExpectTokens(second, b, 24);
  EXPECT_GE(workers_[0]->dropped().size(), 3u) << "nobody was recomputed";
  EXPECT_GE(preemptions.count, 1);
  EXPECT_EQ(workers_[0]->samples(), 0u);
  batcher_ = nullptr;  // before its observer
}

TEST_F(PlacementTest, ASlowReaderIsParkedAndTheOthersGoOn) {
  options_.max_parked = absl::Seconds(5);
  Start();
  const TextJob slow = Text(3, 30, 1), quick = Text(3, 30, 2);
  const RequestId parked = Submit(slow), other = Submit(quick);
  Steps(4);
  sink(parked).is_full = true;
  RunToIdle();
  ExpectTokens(other, quick, 30);
  // What was under way still came; no more.
  EXPECT_LE(sink(parked).outputs[0].tokens.size(), 7u);
  EXPECT_EQ(workers_[0]->samples(), 1u);
  now_ += absl::Seconds(1);  // until what steps cost has been told
  Tick();
  EXPECT_EQ(batcher_->NextDeadline(), now_ + absl::Seconds(4));
  now_ += absl::Seconds(5);
  RunToIdle();
  EXPECT_EQ(workers_[0]->samples(), 0u) << "the place was not given back";
  EXPECT_EQ(batcher_->NextDeadline(), absl::InfiniteFuture());
  batcher_->Wake(parked);  // but it is still full
  RunToIdle();
  EXPECT_FALSE(sink(parked).status.has_value());
  sink(parked).is_full = false;
  batcher_->Wake(parked);
  RunToIdle();
  ExpectTokens(parked, slow, 30);
  EXPECT_EQ(sink(parked).code(), absl::StatusCode::kOk);
}

TEST_F(PlacementTest, APlacedTextIsNotPushedOutAtOnce) {
  pages_ = 10;
  Start();
  Submit(Text(16, 16, 1));
  Steps(2);
  NewSteps(*workers_[0]);
  // Five pages are free; four for the prompt, one for the next token, and one spare each.
  Submit(Text(19, 4, 2));
  Steps(2);
  for (const Step& step : NewSteps(*workers_[0])) EXPECT_THAT(step.rows, SizeIs(1));
}

TEST_F(PlacementTest, TheOthersGoOnWhenATextMakesRoomForItself) {
  pages_ = 9;
  options_.steps_in_flight = 1;
  options_.prefill_chunk_tokens = 1;
  Start();
  const TextJob a = Text(24, 6, 1), b = Text(4, 12, 2);
  const RequestId company = Submit(Text(1, 20, 3));
  Steps(2);
  const RequestId first = Submit(a);
  Steps(1);
  workers_[0]->FailNextStep(absl::ResourceExhaustedError("out of memory"));
  Steps(1);
  // The older text is a suspect now and shares no step; the younger one runs out of pages.
  batcher_->Cancel(company);
  const RequestId second = Submit(b);
  RunToIdle();
  ExpectTokens(first, a, 6);
  ExpectTokens(second, b, 12);
}

TEST_F(PlacementTest, AnOlderTextStaysOlderWhenItComesBack) {
  pages_ = 10;
  options_.max_parked = absl::ZeroDuration();
  Start();
  const TextJob a = Text(4, 24, 1), b = Text(4, 24, 2);
  const RequestId first = Submit(a);
  Steps(2);
  sink(first).is_full = true;
  Steps(2);
  ASSERT_THAT(workers_[0]->dropped(), SizeIs(1));
  const RequestId second = Submit(b);
  Steps(2);
  sink(first).is_full = false;
  batcher_->Wake(first);
  // The pages are too few for both: the younger one makes room.
  while (!sink(first).status.has_value()) Steps(1);
  EXPECT_FALSE(sink(second).status.has_value());
  RunToIdle();
  ExpectTokens(first, a, 24);
  ExpectTokens(second, b, 24);
}

TEST_F(PlacementTest, AReaderThatCatchesUpGoesOnInItsPlace) {
  Start();
  const TextJob job = Text(3, 30, 1);
  const RequestId id = Submit(job);
  Steps(4);
  sink(id).is_full = true;
  RunToIdle();
  sink(id).is_full = false;
  batcher_->Wake(id);
  RunToIdle();
  ExpectTokens(id, job, 30);
  EXPECT_THAT(workers_[0]->dropped(), SizeIs(1)) << "it had to begin again";
}

TEST_F(PlacementTest, ASlowReadersPagesGoToThoseWhoRun) {
  pages_ = 10;
  Start();
  const TextJob slow = Text(20, 20, 1), quick = Text(4, 30, 2);
  const RequestId parked = Submit(slow), other = Submit(quick);
  Steps(2);
  sink(parked).is_full = true;
  RunToIdle();
  ExpectTokens(other, quick, 30);  // not a moment later
  sink(parked).is_full = false;
  batcher_->Wake(parked);
  RunToIdle();
  ExpectTokens(parked, slow, 20);
}

}  // namespace
}  // namespace hanmo::testing
