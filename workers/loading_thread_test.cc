#include "workers/loading_thread.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <filesystem>
#include <iterator>

#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace hanmo {
namespace {

size_t Threads() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

// Beside threads that libgomp keeps for another one the compute thread's would not spin.
TEST(LoadingThreadTest, ThreadsOfItsOperatorsEndWithTheTask) {
  at::set_num_threads(4);  // starts threads of torch's own, once
  LoadingThread loading([] { at::set_num_threads(4); });
  const size_t before = Threads();
  size_t during = 0;
  absl::Notification done;
  loading.Submit([&] {
    at::parallel_for(0, 4, 1, [&](int64_t begin, int64_t) {
      if (begin == 0) during = Threads();
    });
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_GT(during, before + 1);
  const absl::Time patience = absl::Now() + absl::Seconds(60);
  while (Threads() > before && absl::Now() < patience) sched_yield();
  EXPECT_EQ(Threads(), before);
}

}  // namespace
}  // namespace hanmo
