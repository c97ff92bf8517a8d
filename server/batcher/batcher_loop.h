// Who ticks the batcher, and when.
#ifndef HANMO_SERVER_BATCHER_BATCHER_LOOP_H_
#define HANMO_SERVER_BATCHER_BATCHER_LOOP_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/batcher/batcher.h"
#include "server/batcher/observer.h"

namespace hanmo {

// Whoever brings a message while nobody ticks does it himself: a call that comes in is on its way
// to the worker, and a token to its reader, without waking another thread. What others bring
// meanwhile is done by the one at it. A thread of the loop's own sleeps until the next deadline and
// takes over from a caller that has ticked long enough.
//
// Callbacks of sinks, links and the observer come one at a time, in order, from the thread that
// ticks: nobody may call the batcher with a lock held that such a callback takes.
class BatcherLoop {
 public:
  // `observer` outlives the loop.
  BatcherLoop(BatcherOptions options, BatcherObserver* observer);
  // Ends what is still there with UNAVAILABLE. Nobody calls the batcher any more.
  ~BatcherLoop();
  BatcherLoop(const BatcherLoop&) = delete;
  BatcherLoop& operator=(const BatcherLoop&) = delete;

  // Its thread-safe part only.
  Batcher& batcher() { return batcher_; }

 private:
  // Takes the turn to tick, or leaves word for who has it.
  bool TakeTurn() { return calls_.fetch_add(1, std::memory_order_acq_rel) == 0; }
  // With the turn. Ticks until no call is left, `most` times at most; true when the turn is given
  // up.
  bool TickUntilQuiet(int most);
  void Tick();
  void WakeUp() ABSL_LOCKS_EXCLUDED(mu_);
  // Tells the thread when to tick, and what to destroy.
  void Inform(absl::Time next) ABSL_LOCKS_EXCLUDED(mu_);
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // Waits for a while; true when it is time to tick.
  bool WaitUntilDue() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  BatcherObserver& observer_;
  Batcher batcher_;
  // Calls since the one that took the turn; 0 when nobody has it.
  std::atomic<uint32_t> calls_{0};

  absl::Mutex mu_;
  absl::CondVar changed_;
  absl::Time next_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  bool handed_over_ ABSL_GUARDED_BY(mu_) = false;  // the turn is the thread's
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  // Destroyed on the thread: a link may wait for the callback threads, which tick.
  std::vector<std::shared_ptr<WorkerLink>> lost_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_BATCHER_LOOP_H_
