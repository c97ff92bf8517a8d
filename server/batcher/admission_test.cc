#include <gmock/gmock.h>

#include "server/batcher/testing/observed_fixture.h"

namespace hanmo::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AdmissionTest : public ObservedTest {
 protected:
  // While another picture runs.
  void ExpectTurns() {
    std::vector<RequestId> hasty, calm;
    for (int i = 0; i < 3; ++i) {
      tenant_ = "calm";
      calm.push_back(Submit(Picture(10)));
      tenant_ = "hasty";
      hasty.push_back(Submit(Picture(10)));
    }
    Tick();
    while (!sink(hasty[0]).status.has_value()) Steps(1);
    EXPECT_FALSE(sink(calm[1]).status.has_value()) << "they take turns";
    RunToIdle();
  }
};

TEST_F(AdmissionTest, WakesTheLoopWithTheFirstMessageOnly) {
  Start();
  wakes_ = 0;
  EXPECT_FALSE(batcher_->pending());
  Submit(Text(3, 2));
  Submit(Text(3, 2));
  EXPECT_EQ(wakes_, 1);
  EXPECT_TRUE(batcher_->pending());
  Tick();
  EXPECT_FALSE(batcher_->pending());
  Submit(Text(3, 2));
  EXPECT_EQ(wakes_, 2);
}

TEST_F(AdmissionTest, RefusesWhatComesAfterAFullQueue) {
  options_.max_queued_requests = 2;
  options_.max_running_samples = 1;
  StartObserved();
  for (int i = 0; i < 4; ++i) Submit(Text(3, 2));
  Tick();
  // One runs, two wait.
  EXPECT_EQ(sink(4).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(sink(4).status->message(), HasSubstr("the queue is full: 2 requests of "));
  EXPECT_THAT(log_.rejections, ElementsAre(Rejection::kQueueFull));
  EXPECT_EQ(log_.load, std::make_pair(2u, 1u));
  RunToIdle();
  for (RequestId id = 1; id <= 3; ++id) EXPECT_EQ(sink(id).code(), absl::StatusCode::kOk);
  EXPECT_EQ(log_.load, std::make_pair(0u, 0u));
}

TEST_F(AdmissionTest, TellsAboutHowLongTheWaitIs) {
  options_.max_running_samples = 1;
  Start();
  const RequestId first = Submit(Picture(8));
  RunToIdle();
  EXPECT_EQ(sink(first).waits.front(), absl::ZeroDuration()) << "nothing was known";
  Submit(Picture(8));
  Tick();
  Submit(Picture(18));
  const RequestId last = Submit(Picture(8));
  Tick();
  // Half of 8 steps, and 18, each with its encoding and decoding, of 10 ms each.
  EXPECT_NEAR(absl::ToDoubleMilliseconds(sink(last).waits.front()), 50 + 200, 25);
  RunToIdle();
  EXPECT_LT(sink(last).waits.back(), sink(last).waits.front());
}

TEST_F(AdmissionTest, WhoFindsAPlaceDoesNotWait) {
  options_.max_running_samples = 4;
  Start();
  Submit(Text(3, 20));
  RunToIdle();
  for (int i = 0; i < 3; ++i) Submit(Text(3, 20));
  Tick();
  const RequestId joins = Submit(Text(3, 20));
  Tick();
  EXPECT_EQ(sink(joins).waits.front(), absl::ZeroDuration());
  const RequestId waits = Submit(Text(3, 20));
  Tick();
  EXPECT_GT(sink(waits).waits.front(), absl::Milliseconds(50));
  RunToIdle();
}

TEST_F(AdmissionTest, TheWaitIsThatOfHowFastTheQueueIsWorkedOff) {
  options_.max_running_samples = 4;
  Start();
  Submit(Text(3, 20));
  RunToIdle();
  const auto run = [&] {
    while (!batcher_->idle()) {
      now_ += absl::Milliseconds(10);
      Steps(1);
    }
  };
  const auto wait_behind = [&](int requests) {
    for (int i = 0; i < requests; ++i) Submit(Text(3, 20));
    const RequestId last = Submit(Text(3, 20));
    Tick();
    const absl::Time begun = now_;
    while (sink(last).outputs[0].tokens.empty()) {
      now_ += absl::Milliseconds(10);
      Steps(1);
    }
    const absl::Duration took = now_ - begun;
    run();
    return absl::FDivDuration(sink(last).waits.front(), took);
  };
  // Four at a time take as long as one: at first that is not known.
  EXPECT_GT(wait_behind(40), 2);
  wait_behind(80);
  const double ratio = wait_behind(40);
  EXPECT_GT(ratio, 0.7);
  EXPECT_LT(ratio, 1.4);
}

TEST_F(AdmissionTest, TenantsShareByWeightAndPriorityGoesFirst) {
  options_.max_running_samples = 1;
  options_.tenant_weights["heavy"] = 3;
  Start();
  Submit(Text(3, 10));
  RunToIdle();
  Submit(Text(3, 10));
  Tick();
  std::vector<RequestId> light, heavy;
  for (int i = 0; i < 12; ++i) {
    tenant_ = "light";
    light.push_back(Submit(Text(3, 10)));
    tenant_ = "heavy";
    heavy.push_back(Submit(Text(3, 10)));
  }
  tenant_ = "light";
  priority_ = 1;
  const RequestId first = Submit(Text(3, 10));
  const auto ended = [&](const std::vector<RequestId>& ids) {
    return std::count_if(ids.begin(), ids.end(),
                         [&](RequestId id) { return sink(id).status.has_value(); });
  };
  Tick();
  while (!sink(first).status.has_value()) Steps(1);
  EXPECT_EQ(ended(light) + ended(heavy), 0);
  while (ended(heavy) < 9) Steps(1);
  EXPECT_NEAR(static_cast<double>(ended(light)), 3, 1);
  RunToIdle();
}

TEST_F(AdmissionTest, WhatIsRefusedIsNotCharged) {
  options_.max_running_samples = 1;
  Start();
  Submit(Picture(10));
  RunToIdle();
  Submit(Picture(10));
  Tick();
  tenant_ = "hasty";
  PictureJob flexible = Picture(50);
  flexible.min_steps = 49;
  for (int i = 0; i < 50; ++i) Submit(flexible, absl::Milliseconds(100));
  Tick();
  EXPECT_EQ(sink(3).code(), absl::StatusCode::kDeadlineExceeded);
  ExpectTurns();
}

TEST_F(AdmissionTest, WhatLeavesTheQueueWithoutAStepIsNotCharged) {
  options_.max_running_samples = 1;
  Start();
  Submit(Picture(10));
  RunToIdle();
  Submit(Picture(10));
  Tick();
  tenant_ = "hasty";
  for (int i = 0; i < 50; ++i) batcher_->Cancel(Submit(Picture(50)));
  Tick();
  ExpectTurns();
}

TEST_F(AdmissionTest, EqualRequestsOfOneTenantRunInOrderOfArrivalUnderEveryPolicy) {
  for (const Policy policy : {Policy::kHanmo, Policy::kFcfs}) {
    options_.policy.policy = policy;
    options_.max_running_samples = 2;
    workers_.clear();
    sinks_.clear();
    steps_read_.clear();
    Start();
    Submit(Picture(10));
    RunToIdle();
    std::vector<RequestId> ids;
    for (int i = 0; i < 20; ++i) ids.push_back(Submit(Picture(10)));
    Tick();
    for (size_t next = 0; next < ids.size();) {
      Steps(1);
      while (next < ids.size() && sink(ids[next]).status.has_value()) ++next;
      for (size_t i = next + 2; i < ids.size(); ++i) {
        EXPECT_FALSE(sink(ids[i]).status.has_value()) << i << " before " << next;
      }
    }
  }
}

TEST_F(AdmissionTest, BoundsTheQueueByWork) {
  options_.max_queued_work = absl::Seconds(3);
  Start();
  Submit(Picture(4));
  RunToIdle();
  // A second each; one or two run.
  std::vector<RequestId> ids;
  for (int i = 0; i < 8; ++i) ids.push_back(Submit(Picture(100, i)));
  Tick();
  EXPECT_FALSE(sink(ids[2]).status.has_value());
  EXPECT_EQ(sink(ids[7]).code(), absl::StatusCode::kResourceExhausted);
  batcher_->Abort();
  Tick();
}

TEST_F(AdmissionTest, RefusesWhenNoWorkerEverHadTheModel) {
  batcher_ = std::make_unique<Batcher>(options_, &log_, [] {});
  const RequestId id = Submit(Text(3, 2));
  Tick();
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(log_.rejections, ElementsAre(Rejection::kNoWorker));
}

TEST_F(AdmissionTest, WaitsForTheSuccessorOfADeadWorker) {
  Start();
  batcher_->WorkerLost(0);
  const TextJob job = Text(3, 2);
  const RequestId id = Submit(job);
  Tick();
  EXPECT_FALSE(sink(id).status.has_value());
  AddWorker();
  RunToIdle();
  ExpectTokens(id, job, 2);
}

TEST_F(AdmissionTest, EndsWhatWaitsForAModelThatFailed) {
  Start();
  batcher_->WorkerLost(0);
  const RequestId waiting = Submit(Text(3, 2));
  Tick();
  batcher_->ModelFailed(kText);
  const RequestId late = Submit(Text(3, 2));
  Tick();
  EXPECT_EQ(sink(waiting).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sink(late).code(), absl::StatusCode::kUnavailable);
  AddWorker();  // came back after all
  const RequestId later = Submit(Text(3, 2));
  RunToIdle();
  EXPECT_EQ(sink(later).code(), absl::StatusCode::kOk);
}

TEST_F(AdmissionTest, EndsWhatASlowReaderHoldsOfAModelThatFailed) {
  options_.max_parked = absl::ZeroDuration();
  Start();
  const RequestId held = Submit(Text(3, 30)), aboard = Submit(Text(3, 30));
  const RequestId other = Submit(Picture(3));
  Steps(3);
  sink(held).is_full = true;
  Steps(2);
  batcher_->ModelFailed(kText);
  Tick();
  EXPECT_EQ(sink(held).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(sink(aboard).code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(sink(other).status.has_value());
  RunToIdle();
  EXPECT_EQ(sink(other).code(), absl::StatusCode::kOk);
  EXPECT_EQ(workers_[0]->samples(), 0u);
}

TEST_F(AdmissionTest, ATextSentToAPictureModelEndsWithTheWorkersError) {
  Start();
  Request request;
  request.model = kPictures;
  request.arrival = now_;
  request.samples.push_back(Text(3, 5));
  sinks_.push_back(std::make_shared<RecordingSink>(1));
  const RequestId id = batcher_->Submit(std::move(request), sinks_.back());
  workers_[0]->FailRowOfSeed(1);
  RunToIdle();
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kInternal);
}

TEST_F(AdmissionTest, TellsPositionsUntilTheFirstStep) {
  options_.max_running_samples = 1;
  Start();
  for (int i = 0; i < 3; ++i) Submit(Text(3, 1));
  RunToIdle();
  EXPECT_THAT(sink(1).positions, ElementsAre(0));
  EXPECT_THAT(sink(2).positions, ElementsAre(1, 0));
  EXPECT_THAT(sink(3).positions, ElementsAre(2, 1, 0));
}

TEST_F(AdmissionTest, BeginsInOrderOfArrival) {
  options_.max_running_samples = 2;
  Start();
  // The third sample of the first request goes before the second request.
  Submit({Text(3, 4, 1), Text(3, 2, 2), Text(3, 4, 3)});
  Submit(Text(3, 1, 4));
  Tick();
  Steps(2);
  EXPECT_EQ(sink(1).outputs[1].tokens.size(), 2u);
  Steps(2);
  EXPECT_FALSE(sink(1).outputs[2].tokens.empty());
  EXPECT_TRUE(sink(2).outputs[0].tokens.empty());
  RunToIdle();
  EXPECT_EQ(sink(2).code(), absl::StatusCode::kOk);
}

TEST_F(AdmissionTest, CancelsInTheQueueAndWhileRunning) {
  options_.max_running_samples = 1;
  StartObserved();
  const RequestId running = Submit(Text(3, 40));
  const RequestId waiting = Submit(Text(3, 40));
  const RequestId next = Submit(Text(3, 1));
  Steps(3);
  batcher_->Cancel(running);
  batcher_->Cancel(waiting);
  batcher_->Cancel(999);
  Tick();
  EXPECT_EQ(sink(running).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sink(waiting).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(sink(running).usage.completion_tokens, sink(running).outputs[0].tokens.size());
  EXPECT_GT(sink(running).usage.completion_tokens, 0u);
  EXPECT_EQ(workers_[0]->dropped().size(), 1u);
  EXPECT_EQ(log_.cancelled, 2);
  RunToIdle();
  EXPECT_EQ(sink(next).code(), absl::StatusCode::kOk);
  EXPECT_EQ(workers_[0]->samples(), 0u);
  batcher_->Cancel(next);  // ended: ignored
  Tick();
}

TEST_F(AdmissionTest, DrainFinishesWhatWasAccepted) {
  StartObserved();
  const TextJob job = Text(3, 4);
  const RequestId before = Submit(job);
  batcher_->Drain();
  const RequestId after = Submit(job);
  RunToIdle();
  ExpectTokens(before, job, 4);
  EXPECT_EQ(sink(before).code(), absl::StatusCode::kOk);
  EXPECT_EQ(sink(after).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(log_.rejections, ElementsAre(Rejection::kDraining));
  EXPECT_TRUE(batcher_->idle());
}

TEST_F(AdmissionTest, AbortEndsEverything) {
  options_.max_running_samples = 1;
  Start();
  for (int i = 0; i < 3; ++i) Submit(Text(3, 40));
  Steps(2);
  batcher_->Abort();
  Tick();
  for (RequestId id = 1; id <= 3; ++id) {
    EXPECT_EQ(sink(id).code(), absl::StatusCode::kUnavailable);
  }
  EXPECT_TRUE(batcher_->idle());
  const RequestId late = Submit(Text(3, 2));
  RunToIdle();
  EXPECT_EQ(sink(late).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(workers_[0]->samples(), 0u);
}

TEST_F(AdmissionTest, TellsTheLatenciesOfTexts) {
  struct Latencies : BatcherObserver {
    void OnPrefill(ModelId, absl::Duration time, uint32_t) override { prefill.push_back(time); }
    void OnFirstToken(ModelId, absl::Duration since) override { first.push_back(since); }
    void OnInterToken(ModelId, absl::Duration gap) override { gaps.push_back(gap); }
    void OnTextEnd(ModelId, const TextEnd& end) override { ends.push_back(end); }
    std::vector<absl::Duration> prefill, first, gaps;
    std::vector<TextEnd> ends;
  } latencies;
  options_.max_running_samples = 1;
  batcher_ = std::make_unique<Batcher>(options_, &latencies, [] {});
  AddWorker();
  Tick();
  const RequestId before = Submit(Text(3, 40));
  Submit(Text(3, 3));
  Steps(2);
  batcher_->Cancel(before);
  latencies = {};
  Tick();
  for (int i = 0; i < 6; ++i) {
    now_ += absl::Seconds(1);
    Steps(1);
  }
  // The steps of the cancelled text come first: two that were under way.
  EXPECT_THAT(latencies.prefill, ElementsAre(absl::Seconds(2)));
  EXPECT_THAT(latencies.first, ElementsAre(absl::Seconds(3)));
  EXPECT_THAT(latencies.gaps, ElementsAre(absl::Seconds(1), absl::Seconds(1)));
  ASSERT_EQ(latencies.ends.size(), 1u);  // not the cancelled one's
  EXPECT_EQ(latencies.ends[0].end, SampleEnd::kLength);
  EXPECT_EQ(latencies.ends[0].prompt_tokens, 3u);
  EXPECT_EQ(latencies.ends[0].tokens, 3u);
  EXPECT_EQ(latencies.ends[0].decode, absl::Seconds(2));
  batcher_ = nullptr;  // before its observer
}

}  // namespace
}  // namespace hanmo::testing
