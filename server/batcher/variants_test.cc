// Pictures whose model has several variants of its weights (experts by timestep).
#include <gmock/gmock.h>

#include <algorithm>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {
namespace {

class VariantsTest : public BatcherTest {
 protected:
  // Starts a worker with two variants, and has it paint a picture, so that costs are known.
  void StartWithTwo() {
    variants_ = 2;
    Start();
    Submit(Picture(10, 99));
    RunToIdle();
    NewSteps(*workers_[0]);
    changes_ = workers_[0]->changes();
  }
  uint32_t NewChanges() { return workers_[0]->changes() - changes_; }
  // Denoising steps of so many rows since the start.
  int64_t StepsOf(size_t rows) {
    const auto& steps = workers_[0]->steps();
    return std::count_if(steps.begin(), steps.end(), [&](const Step& step) {
      return step.kind == StepKind::kDenoise && step.rows.size() == rows;
    });
  }

  uint32_t changes_ = 0;
};

TEST_F(VariantsTest, PicturesThatAreBehindCatchUpAndThenShareAllSteps) {
  StartWithTwo();
  const PictureJob a = Picture(10, 1), b = Picture(10, 2);
  const RequestId first = Submit(a);
  Steps(3);
  const RequestId second = Submit(b);
  RunToIdle();
  ExpectPicture(first, a);
  ExpectPicture(second, b);
  // One back to the first variant, one on to the second for both.
  EXPECT_EQ(NewChanges(), 2u);
  // The second half of both; of the first half what was left when the second came.
  EXPECT_GE(StepsOf(2), 5);
  EXPECT_LT(StepsOf(2), 10);
}

TEST_F(VariantsTest, TheOneAheadDoesNotWaitForever) {
  StartWithTwo();
  const RequestId first = Submit(Picture(10, 1));
  Steps(3);
  size_t others = 0;
  while (!sink(first).status.has_value() && others < 200) {
    Submit(Picture(10, 2 + others++));
    Steps(1);
  }
  EXPECT_TRUE(sink(first).status.has_value());
  EXPECT_LT(others, 80u);
  RunToIdle();
}

TEST_F(VariantsTest, WhoIsUrgentDoesNotWait) {
  StartWithTwo();
  const RequestId first = Submit(Picture(10, 1), absl::Milliseconds(130));
  Steps(3);
  Submit(Picture(10, 2));
  now_ += absl::Milliseconds(100);  // it must run now
  Tick();
  Steps(10);
  EXPECT_TRUE(sink(first).outputs[0].end.has_value());
  RunToIdle();
  EXPECT_GT(NewChanges(), 2u);
}

TEST_F(VariantsTest, AfterADeathEachGoesOnWithTheVariantOfItsPlace) {
  StartWithTwo();
  std::vector<PictureJob> jobs;
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    jobs.push_back(Picture(20, seed));
    Submit(jobs.back());
    Steps(4);
  }
  Replace(*workers_[0]);
  RunToIdle();
  for (size_t i = 0; i < jobs.size(); ++i) {
    ExpectPicture(2 + i, jobs[i]);
    EXPECT_LE(sink(2 + i).usage.steps_redone, 10u);
  }
}

struct CostObserver final : public BatcherObserver {
  void OnCosts(ModelId, std::vector<StepCosts::Description> costs) override {
    for (const StepCosts::Description& cost : costs) {
      if (cost.key.kind == StepKind::kDenoise) one_row = cost.one_row;
    }
  }
  absl::Duration one_row;
};

TEST_F(VariantsTest, WaitingForWeightsIsNoPartOfAStepsCost) {
  variants_ = 5;
  change_ = absl::Seconds(1);
  CostObserver log;
  batcher_ = std::make_unique<Batcher>(options_, &log, [] {});
  AddWorker();
  for (int i = 0; i < 2; ++i) {
    Submit(Picture(10));
    RunToIdle();
    now_ += absl::Minutes(1);
  }
  EXPECT_EQ(workers_[0]->changes(), 9u);
  EXPECT_NEAR(absl::ToDoubleSeconds(log.one_row), 0.010, 1e-6);
}

}  // namespace
}  // namespace hanmo::testing
