#include "server/batcher/batcher_loop.h"

#include <iterator>
#include <limits>
#include <utility>

#include "server/batcher/clock.h"

namespace hanmo {
namespace {

// Ticks that one call may be kept for: under load the thread does them.
constexpr int kMostTicksOfACall = 4;

}  // namespace

BatcherLoop::BatcherLoop(BatcherOptions options, BatcherObserver* observer)
    : observer_(*observer),
      batcher_(options, observer, [this] { WakeUp(); }),
      thread_([this] { Run(); }) {}

BatcherLoop::~BatcherLoop() {
  batcher_.Abort();
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    changed_.Signal();
  }
  thread_.join();
}

void BatcherLoop::WakeUp() {
  if (!TakeTurn() || TickUntilQuiet(kMostTicksOfACall)) return;
  absl::MutexLock lock(&mu_);
  handed_over_ = true;
  changed_.Signal();
}

bool BatcherLoop::TickUntilQuiet(int most) {
  uint32_t calls = calls_.load(std::memory_order_acquire);
  for (int i = 0; i < most; ++i) {
    Tick();
    // Before the turn is given up: after it nobody else may be left to see the loop.
    if (calls_.compare_exchange_strong(calls, 0, std::memory_order_acq_rel)) return true;
  }
  return false;
}

void BatcherLoop::Tick() {
  const absl::Time start = SteadyNow();
  batcher_.Tick(start);
  observer_.OnTick(SteadyNow() - start);
  Inform(batcher_.NextDeadline());
}

void BatcherLoop::Inform(absl::Time next) {
  std::vector<std::shared_ptr<WorkerLink>> lost = batcher_.TakeLost();
  absl::MutexLock lock(&mu_);
  // A later instant needs no waking: the thread looks again when it wakes up.
  if (next < next_ || !lost.empty()) changed_.Signal();
  next_ = next;
  lost_.insert(lost_.end(), std::make_move_iterator(lost.begin()),
               std::make_move_iterator(lost.end()));
}

void BatcherLoop::Run() {
  bool stopping = false;
  // The abort may be somebody else's to do.
  while (!stopping || calls_.load(std::memory_order_acquire) != 0) {
    bool turn = false;
    bool due = false;
    std::vector<std::shared_ptr<WorkerLink>> lost;
    {
      absl::MutexLock lock(&mu_);
      while (!handed_over_ && !stopping_ && lost_.empty() && !due) due = WaitUntilDue();
      turn = std::exchange(handed_over_, false);
      stopping = stopping_;
      lost.swap(lost_);
    }
    if (turn || (due && TakeTurn())) TickUntilQuiet(std::numeric_limits<int>::max());
  }
}

bool BatcherLoop::WaitUntilDue() {
  if (next_ == absl::InfiniteFuture()) {
    changed_.Wait(&mu_);
    return false;
  }
  const absl::Duration left = next_ - SteadyNow();
  if (left > absl::ZeroDuration()) {
    changed_.WaitWithTimeout(&mu_, left);
    return false;
  }
  // Whoever ticks next says when again.
  next_ = absl::InfiniteFuture();
  return true;
}

}  // namespace hanmo
