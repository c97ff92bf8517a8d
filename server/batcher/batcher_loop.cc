#include "server/batcher/batcher_loop.h"

#include "server/batcher/clock.h"

namespace hanmo {

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
  absl::MutexLock lock(&mu_);
  woken_ = true;
  changed_.Signal();
}

void BatcherLoop::Run() {
  bool stopping = false;
  while (!stopping) {
    const absl::Time next = batcher_.NextDeadline();
    {
      absl::MutexLock lock(&mu_);
      while (!woken_ && !stopping_) {
        if (next == absl::InfiniteFuture()) {
          changed_.Wait(&mu_);
        } else if (changed_.WaitWithTimeout(&mu_, next - SteadyNow())) {
          break;
        }
      }
      woken_ = false;
      // One more tick, for the abort.
      stopping = stopping_;
    }
    const absl::Time start = SteadyNow();
    batcher_.Tick(start);
    observer_.OnTick(SteadyNow() - start);
  }
}

}  // namespace hanmo
