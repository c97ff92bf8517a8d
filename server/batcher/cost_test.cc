#include "server/batcher/cost.h"

#include <gmock/gmock.h>

namespace hanmo {
namespace {

using ::testing::DoubleNear;

double Seconds(absl::Duration time) { return absl::ToDoubleSeconds(time); }

// A device on which a step of n rows takes base + n * per_row milliseconds.
CostCurve Measured(double base, double per_row, const std::vector<uint32_t>& rows) {
  CostCurve curve;
  for (int i = 0; i < 5; ++i) {
    for (const uint32_t n : rows) curve.Learn({n, 0}, absl::Milliseconds(base + n * per_row));
  }
  return curve;
}

TEST(CostCurveTest, KnowsNothingAtFirst) {
  const CostCurve curve;
  EXPECT_EQ(curve.Predict({1, 0}), absl::ZeroDuration());
  EXPECT_EQ(curve.Knee(8), 0u);
}

TEST(CostCurveTest, PredictsBetweenAndBeyondWhatItSaw) {
  const CostCurve curve = Measured(10, 2, {1, 4, 8});
  EXPECT_THAT(Seconds(curve.Predict({4, 0})), DoubleNear(0.018, 1e-4));
  EXPECT_THAT(Seconds(curve.Predict({6, 0})), DoubleNear(0.022, 1e-3));
  EXPECT_THAT(Seconds(curve.Predict({32, 0})), DoubleNear(0.074, 4e-3));
}

TEST(CostCurveTest, OneKnownSizeIsTakenForThePriceOfRows) {
  const CostCurve curve = Measured(10, 0, {2});
  EXPECT_THAT(Seconds(curve.Predict({4, 0})), DoubleNear(0.020, 1e-4));
}

TEST(CostCurveTest, PromptTokensComeOnTop) {
  CostCurve curve = Measured(10, 1, {1, 16});
  for (int i = 0; i < 10; ++i) curve.Learn({16, 100}, absl::Milliseconds(26 + 50));
  EXPECT_THAT(Seconds(curve.Predict({16, 200})), DoubleNear(0.126, 2e-3));
  EXPECT_THAT(Seconds(curve.Predict({1, 0})), DoubleNear(0.011, 1e-4));
}

TEST(CostCurveTest, OneSlowStepIsNoNews) {
  CostCurve curve = Measured(10, 0, {1});
  curve.Learn({1, 0}, absl::Seconds(100));
  EXPECT_LT(Seconds(curve.Predict({1, 0})), 0.020);
}

TEST(CostCurveTest, FollowsADeviceThatBecameSlower) {
  CostCurve curve = Measured(10, 0, {1});
  for (int i = 0; i < 40; ++i) curve.Learn({1, 0}, absl::Milliseconds(30));
  EXPECT_THAT(Seconds(curve.Predict({1, 0})), DoubleNear(0.030, 1e-3));
}

TEST(CostCurveTest, ASaturatedDeviceTakesOneRow) {
  EXPECT_EQ(Measured(0, 10, {1, 2}).Knee(16), 1u);
}

TEST(CostCurveTest, AnIdleDeviceTakesMore) {
  // 10 + n: the throughput at 16 rows is 0.615 a millisecond, 0.97 of it at 15.
  EXPECT_EQ(Measured(10, 1, {1, 2, 4, 8, 16}).Knee(16), 15u);
}

TEST(CostCurveTest, ExploresWhileLargerBatchesPay) {
  CostCurve curve;
  for (int i = 0; i < 3; ++i) curve.Learn({1, 0}, absl::Milliseconds(11));
  EXPECT_EQ(curve.Knee(16), 2u);
  for (int i = 0; i < 3; ++i) curve.Learn({2, 0}, absl::Milliseconds(12));
  EXPECT_EQ(curve.Knee(16), 4u);
}

TEST(CostCurveTest, ExploresFromTwoRowsWhereNobodyHasFewer) {
  CostCurve curve;
  for (int i = 0; i < 3; ++i) curve.Learn({2, 0}, absl::Milliseconds(12));
  EXPECT_EQ(curve.Knee(16), 4u) << "a second picture with guidance";
  for (int i = 0; i < 3; ++i) curve.Learn({4, 0}, absl::Milliseconds(24));
  EXPECT_EQ(curve.Knee(16), 2u) << "it does not pay";
  for (int i = 0; i < 3; ++i) curve.Learn({1, 0}, absl::Milliseconds(6));
  EXPECT_EQ(curve.Knee(16), 1u) << "now there are others";
}

TEST(CostCurveTest, ExploresWhileEachDoublingBringsALittle) {
  // 1.06 x the throughput at each doubling: 1.26 x at 16 rows, 1.22 x at 12.
  CostCurve curve;
  double milliseconds = 10;
  uint32_t rows = 1;
  for (; rows < 16; rows *= 2, milliseconds *= 2 / 1.06) {
    for (int i = 0; i < 3; ++i) curve.Learn({rows, 0}, absl::Milliseconds(milliseconds));
    EXPECT_EQ(curve.Knee(16), 2 * rows);
  }
  for (int i = 0; i < 3; ++i) curve.Learn({rows, 0}, absl::Milliseconds(milliseconds));
  EXPECT_THAT(curve.Knee(16), ::testing::AllOf(::testing::Gt(8u), ::testing::Lt(16u)));
}

TEST(CostCurveTest, TriesAgainWhatWasBadOnce) {
  CostCurve curve = Measured(10, 10, {1, 2});
  // At two rows something else ran, too.
  for (int i = 0; i < 3; ++i) curve.Learn({2, 0}, absl::Milliseconds(60));
  ASSERT_EQ(curve.Knee(16), 1u);
  uint32_t rows = 1;
  for (int i = 0; i < 2000; ++i) {
    rows = curve.Knee(16);
    curve.Learn({rows, 0}, absl::Milliseconds(10 + rows));
  }
  EXPECT_GT(rows, 8u);
}

TEST(CostCurveTest, MemoryGrowsWithTheRows) {
  CostCurve curve;
  EXPECT_EQ(curve.PredictBytes(4), 0u);
  curve.LearnBytes(2, 700);
  curve.LearnBytes(2, 500);
  EXPECT_EQ(curve.PredictBytes(1), 700u) << "no more than two rows need";
  EXPECT_EQ(curve.PredictBytes(2), 700u) << "the most";
  EXPECT_EQ(curve.PredictBytes(8), 2800u);
  curve.LearnBytes(8, 1600);
  EXPECT_EQ(curve.PredictBytes(3), 1600u);
  EXPECT_EQ(curve.PredictBytes(1000), 200'000u);
}

TEST(StepCostsTest, TellsHowManyRowsFit) {
  StepCosts costs;
  const CostKey small{7, StepKind::kDenoise, 256, 256}, large{7, StepKind::kDenoise, 512, 512};
  EXPECT_EQ(costs.RowsWithin(small, 1, 16), 16u) << "nothing is known";
  costs.LearnBytes(small, {2, 0}, 200);
  EXPECT_EQ(costs.RowsWithin(small, 850, 16), 8u);
  EXPECT_EQ(costs.RowsWithin(large, 850, 16), 2u) << "four times the pixels";
  EXPECT_EQ(costs.RowsWithin(large, 10, 16), 1u);
}

TEST(StepCostsTest, ScalesSizesNeverSeenByTheirPixels) {
  StepCosts costs;
  for (int i = 0; i < 3; ++i) {
    costs.Learn({7, StepKind::kDenoise, 256, 256}, {1, 0}, absl::Milliseconds(100));
  }
  EXPECT_THAT(Seconds(costs.Predict({7, StepKind::kDenoise, 512, 512}, {1, 0})),
              DoubleNear(0.4, 1e-3));
  EXPECT_EQ(costs.Predict({8, StepKind::kDenoise, 256, 256}, {1, 0}), absl::ZeroDuration());
}

TEST(StepCostsTest, AddsUpAPicture) {
  StepCosts costs;
  for (int i = 0; i < 3; ++i) {
    costs.Learn({1, StepKind::kTextEncode, 0, 0}, {2, 0}, absl::Milliseconds(20));
    costs.Learn({1, StepKind::kDenoise, 64, 64}, {2, 0}, absl::Milliseconds(100));
    costs.Learn({1, StepKind::kVaeDecode, 64, 64}, {1, 0}, absl::Milliseconds(50));
  }
  PictureJob job;
  job.width = job.height = 64;
  job.steps = 20;
  job.guidance = 7.5;
  EXPECT_THAT(Seconds(costs.Lone(1, job)), DoubleNear(2.07, 1e-2));
}

TEST(StepCostsTest, ExpectsTextsAsLongAsTheLastOnes) {
  StepCosts costs;
  for (int i = 0; i < 3; ++i) {
    costs.Learn({1, StepKind::kText, 0, 0}, {1, 0}, absl::Milliseconds(10));
  }
  TextJob job;
  job.prompt = {1};
  job.max_tokens = 100;
  EXPECT_THAT(Seconds(costs.Lone(1, job)), DoubleNear(1.0, 1e-2));
  for (int i = 0; i < 50; ++i) costs.LearnLength(1, 20);
  EXPECT_THAT(Seconds(costs.Lone(1, job)), DoubleNear(0.2, 1e-2));
}

TEST(StepCostsTest, AnotherVersionTakesOverWhatIsKnown) {
  StepCosts costs;
  for (int i = 0; i < 3; ++i) {
    costs.Learn({1, StepKind::kDenoise, 64, 64}, {1, 0}, absl::Milliseconds(10));
  }
  costs.LearnLength(1, 30);
  costs.Copy(1, 7);
  costs.Forget(1);
  EXPECT_THAT(Seconds(costs.Predict({7, StepKind::kDenoise, 64, 64}, {1, 0})),
              DoubleNear(0.010, 1e-4));
  EXPECT_EQ(costs.Predict({1, StepKind::kDenoise, 64, 64}, {1, 0}), absl::ZeroDuration());
  EXPECT_EQ(costs.Describe(1, 16).size(), 0u);
  EXPECT_EQ(costs.Describe(7, 16).size(), 1u);
}

TEST(StepCostsTest, OfManySizesTheMostMeasuredAreKept) {
  StepCosts costs;
  const CostKey text{0, StepKind::kText, 0, 0}, usual{0, StepKind::kDenoise, 512, 512};
  costs.Learn(text, {1, 0}, absl::Milliseconds(3));
  for (int i = 0; i < 5; ++i) costs.Learn(usual, {1, 0}, absl::Milliseconds(7));
  for (uint32_t width = 8; width < 80'000; width += 8) {
    costs.Learn({0, StepKind::kDenoise, width, 64}, {1, 0}, absl::Milliseconds(1));
  }
  EXPECT_LE(costs.Describe(0, 1).size(), 512u);
  EXPECT_EQ(costs.Describe(0, 1)[0].key.width, 512u);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(costs.Predict(usual, {1, 0})), 7, 1e-3);
  EXPECT_NEAR(absl::ToDoubleMilliseconds(costs.Predict(text, {1, 0})), 3, 1e-3);
}

TEST(PaceTest, IsWhatGetsDoneWhileOthersWait) {
  Pace pace;
  EXPECT_EQ(pace.Rate(3), 3);
  absl::Time now = absl::UnixEpoch();
  // Four seconds of lone time in each second, for a minute; before it nobody waited for an hour.
  pace.Learn(now, absl::Seconds(1), false);
  now += absl::Hours(1);
  for (int i = 0; i < 60; ++i) {
    pace.Learn(now, absl::Seconds(4), true);
    now += absl::Seconds(1);
  }
  EXPECT_NEAR(pace.Rate(1), 4, 0.2);
  // Two that end together count together.
  Pace pairs;
  for (int i = 0; i < 120; ++i) {
    pairs.Learn(now, absl::Seconds(2), true);
    if (i % 2 != 0) now += absl::Seconds(1);
  }
  EXPECT_NEAR(pairs.Rate(1), 4, 0.2);
}

TEST(DelayModelTest, FindsWhatNineteenOfTwentyKeep) {
  DelayModel delay;
  EXPECT_EQ(delay.Of(absl::Seconds(10)), absl::Seconds(8));
  // A tenth takes twice as long as predicted, the others half as long.
  for (int i = 0; i < 2000; ++i) {
    delay.Learn(absl::Seconds(10), absl::Seconds(i % 10 == 0 ? 20 : 5));
  }
  EXPECT_GT(delay.Of(absl::Seconds(10)), absl::Seconds(19));
  // A fiftieth.
  for (int i = 0; i < 5000; ++i) {
    delay.Learn(absl::Seconds(10), absl::Seconds(i % 50 == 0 ? 20 : 5));
  }
  EXPECT_LT(delay.Of(absl::Seconds(10)), absl::Seconds(6));
  EXPECT_GE(delay.Of(absl::Seconds(10)), absl::Seconds(5));
}

}  // namespace
}  // namespace hanmo
