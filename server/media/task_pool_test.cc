#include "server/media/task_pool.h"

#include <atomic>

#include "absl/synchronization/notification.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

TEST(TaskPoolTest, RefusesWhatDoesNotFitAndTakesItOnceThereIsRoom) {
  absl::Notification started;
  absl::Notification release;
  absl::Notification drained;
  TaskPool pool(1, 10);
  ASSERT_TRUE(pool.Submit(10, [&] {
    started.Notify();
    release.WaitForNotification();
  }));
  started.WaitForNotification();  // running, so it no longer counts
  EXPECT_TRUE(pool.Submit(6, [] {}));
  EXPECT_FALSE(pool.Submit(5, [] { ADD_FAILURE() << "was refused"; }));
  EXPECT_TRUE(pool.Submit(4, [&] { drained.Notify(); }));
  EXPECT_FALSE(pool.Submit(1, [] { ADD_FAILURE() << "was refused"; }));
  release.Notify();
  drained.WaitForNotification();
  EXPECT_TRUE(pool.Submit(10, [] {}));
}

TEST(TaskPoolTest, WhatIsKeptCountsUntilItIsForgottenOrRun) {
  absl::Notification ran;
  TaskPool pool(1, 10);
  ASSERT_TRUE(pool.Keep(6));
  ASSERT_TRUE(pool.Keep(4));
  EXPECT_FALSE(pool.Keep(1));
  EXPECT_FALSE(pool.Submit(1, [] { ADD_FAILURE() << "was refused"; }));
  pool.Forget(4);
  EXPECT_TRUE(pool.Keep(4));
  pool.Forget(4);
  pool.SubmitKept(6, [&] { ran.Notify(); });
  ran.WaitForNotification();
  EXPECT_TRUE(pool.Submit(10, [] {}));
}

TEST(TaskPoolTest, RunsWhatWaitsBeforeItEnds) {
  std::atomic<int> done{0};
  {
    TaskPool pool(2, 1000);
    for (int i = 0; i < 100; ++i) ASSERT_TRUE(pool.Submit(1, [&done] { ++done; }));
  }
  EXPECT_EQ(done, 100);
}

TEST(TaskPoolTest, OneThreadKeepsTheOrder) {
  std::vector<int> order;
  {
    TaskPool pool(1, 1000);
    for (int i = 0; i < 50; ++i) ASSERT_TRUE(pool.Submit(1, [&order, i] { order.push_back(i); }));
  }
  for (int i = 0; i < 50; ++i) EXPECT_EQ(order[i], i);
}

}  // namespace
}  // namespace hanmo
