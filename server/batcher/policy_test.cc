#include "server/batcher/policy.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace hanmo {
namespace {

PolicyOptions Options(Policy policy) {
  PolicyOptions options;
  options.policy = policy;
  return options;
}

Arrival At(double start_s, double cost_s) {
  Arrival arrival;
  arrival.start = absl::ToInt64Nanoseconds(absl::Seconds(start_s));
  arrival.cost = absl::Seconds(cost_s);
  return arrival;
}

const PolicyOptions kOurs = Options(Policy::kHanmo);

TEST(PolicyTest, AShortRequestOvertakesALongOne) {
  EXPECT_LT(RankOf(kOurs, At(1, 1)), RankOf(kOurs, At(0, 10)));
}

TEST(PolicyTest, ALongRequestThatHasWaitedGoesFirst) {
  // 10 s of its own time, due after 80: short ones that come 70 s later wait for it.
  EXPECT_LT(RankOf(kOurs, At(0, 10)), RankOf(kOurs, At(70, 1)));
}

TEST(PolicyTest, EqualRequestsKeepTheirOrder) {
  EXPECT_LT(RankOf(kOurs, At(0, 10)), RankOf(kOurs, At(1, 10)));
}

TEST(PolicyTest, AStretchOfOneIsTheOrderOfArrival) {
  PolicyOptions options = kOurs;
  options.stretch = 1;
  EXPECT_LT(RankOf(options, At(0, 100)), RankOf(options, At(1, 1)));
}

TEST(PolicyTest, FcfsAndStaticKeepTheOrderOfArrival) {
  for (const Policy policy : {Policy::kFcfs, Policy::kStatic}) {
    Arrival late = At(1, 1);
    late.priority = 100;
    late.left = absl::Seconds(1);
    EXPECT_LT(RankOf(Options(policy), At(0, 100)), RankOf(Options(policy), late));
  }
}

TEST(PolicyTest, ADeadlineBringsForwardButNeverBack) {
  Arrival tight = At(5, 10);
  tight.left = absl::Seconds(12);
  EXPECT_LT(RankOf(kOurs, tight), RankOf(kOurs, At(5, 10)));
  Arrival loose = At(5, 10);
  loose.left = absl::Hours(1);
  EXPECT_EQ(RankOf(kOurs, loose), RankOf(kOurs, At(5, 10)));
}

TEST(PolicyTest, ALevelOfPriorityCountsAsThirtySecondsOfWaiting) {
  Arrival urgent = At(29, 1);
  urgent.priority = 1;
  EXPECT_LT(RankOf(kOurs, urgent), RankOf(kOurs, At(0, 1)));
  urgent = At(31, 1);
  urgent.priority = 1;
  EXPECT_GT(RankOf(kOurs, urgent), RankOf(kOurs, At(0, 1)));
}

TEST(PolicyTest, UrgentRequestsGoBeforeAllOthersByDeadline) {
  Arrival favoured = At(0, 0);
  favoured.priority = 100;
  const absl::Time now = absl::UnixEpoch() + absl::Hours(1000);
  EXPECT_LT(UrgentRank(now + absl::Hours(100)), RankOf(kOurs, favoured));
  EXPECT_LT(UrgentRank(now), UrgentRank(now + absl::Seconds(1)));
}

TEST(PolicyTest, TextsAndPicturesGetTheirShares) {
  const Candidates both[] = {{.texts = true, .first = 5}, {.texts = false, .first = 1}};
  // 60 to 40.
  EXPECT_EQ(ChooseBatch(kOurs, {absl::Seconds(5.9), absl::Seconds(4)}, both), 0u);
  EXPECT_EQ(ChooseBatch(kOurs, {absl::Seconds(6.1), absl::Seconds(4)}, both), 1u);
}

TEST(PolicyTest, TextsOfSeveralModelsTakeTurns) {
  const Candidates texts[] = {{.texts = true, .first = 1, .spent = absl::Seconds(9)},
                              {.texts = true, .first = 7, .spent = absl::Seconds(8)}};
  EXPECT_EQ(ChooseBatch(kOurs, {}, texts), 1u);
  EXPECT_EQ(ChooseBatch(Options(Policy::kFcfs), {}, texts), 0u);
  Candidates urgent[] = {texts[0], texts[1]};
  urgent[0].first = UrgentRank(absl::UnixEpoch());
  EXPECT_EQ(ChooseBatch(kOurs, {}, urgent), 0u);
}

TEST(PolicyTest, WhoIsAloneNeedsNoShare) {
  const Candidates pictures[] = {{.texts = false, .first = 7}, {.texts = false, .first = 3}};
  EXPECT_EQ(ChooseBatch(kOurs, {absl::ZeroDuration(), absl::Seconds(100)}, pictures), 1u);
}

TEST(PolicyTest, TheOthersKnowNoShares) {
  const Candidates both[] = {{.texts = true, .first = 5}, {.texts = false, .first = 1}};
  EXPECT_EQ(ChooseBatch(Options(Policy::kFcfs), {absl::ZeroDuration(), absl::Seconds(9)}, both),
            1u);
}

TEST(FairClockTest, OneTenantIsServedInOrder) {
  FairClock clock;
  WorkTime last = -1;
  for (int i = 0; i < 5; ++i) {
    const WorkTime start = clock.Enter("a", absl::Seconds(i % 2 ? 10 : 1), 1);
    EXPECT_GT(start, last);
    last = start;
  }
}

TEST(FairClockTest, ANewTenantStartsBesideTheOldestRequestOfOthers) {
  FairClock clock;
  std::vector<WorkTime> flood;
  for (int i = 0; i < 100; ++i) flood.push_back(clock.Enter("flood", absl::Seconds(1), 1));
  const WorkTime first = clock.Enter("quiet", absl::Seconds(1), 1);
  const WorkTime second = clock.Enter("quiet", absl::Seconds(1), 1);
  EXPECT_EQ(first, flood[0]);
  EXPECT_EQ(second, flood[1]);
  for (int i = 0; i < 50; ++i) clock.Leave(flood[i]);
  // What was not claimed is gone: nobody saves up.
  EXPECT_EQ(clock.Enter("late", absl::Seconds(1), 1), clock.now());
}

TEST(FairClockTest, SharesFollowTheWeights) {
  FairClock clock;
  std::vector<WorkTime> heavy, light;
  for (int i = 0; i < 12; ++i) {
    heavy.push_back(clock.Enter("heavy", absl::Seconds(1), 3));
    light.push_back(clock.Enter("light", absl::Seconds(1), 1));
  }
  // When the light one has had 4 requests, the heavy one has had 12.
  EXPECT_LT(heavy[11], light[4]);
  EXPECT_GT(heavy[11], light[3]);
}

TEST(FairClockTest, CostsCount) {
  FairClock clock;
  clock.Enter("dear", absl::Seconds(10), 1);
  clock.Enter("cheap", absl::Seconds(1), 1);
  EXPECT_GT(clock.Enter("dear", absl::Seconds(10), 1), clock.Enter("cheap", absl::Seconds(1), 1));
}

TEST(FairClockTest, AskingCostsNothing) {
  FairClock clock;
  clock.Enter("a", absl::Seconds(1), 1);
  const WorkTime start = clock.StartOf("a");
  EXPECT_EQ(clock.StartOf("a"), start);
  EXPECT_EQ(clock.StartOf("b"), clock.now());
  EXPECT_EQ(clock.Enter("a", absl::Seconds(1), 1), start);
}

TEST(FairClockTest, WhatNeverRanIsNotCharged) {
  FairClock clock;
  const WorkTime first = clock.Enter("a", absl::Seconds(1), 2);
  const WorkTime second = clock.Enter("a", absl::Seconds(100), 2);
  clock.Refund("a", absl::Seconds(100), 2);
  clock.Leave(second);
  EXPECT_EQ(clock.Enter("a", absl::Seconds(1), 2), second);
  EXPECT_LT(first, second);
}

TEST(FairClockTest, ForgetsWhenNobodyWaits) {
  FairClock clock;
  const WorkTime start = clock.Enter("a", absl::Hours(10), 1);
  clock.Leave(start);
  EXPECT_LT(clock.Enter("a", absl::Seconds(1), 1), start + 1000);
}

}  // namespace
}  // namespace hanmo
