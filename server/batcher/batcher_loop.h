// The batcher's thread.
#ifndef HANMO_SERVER_BATCHER_BATCHER_LOOP_H_
#define HANMO_SERVER_BATCHER_BATCHER_LOOP_H_

#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/batcher/batcher.h"
#include "server/batcher/observer.h"

namespace hanmo {

// Ticks a batcher on a thread of its own whenever a message came or a deadline passed. The thread
// sleeps in between. All callbacks of sinks, links and the observer come from it.
class BatcherLoop {
 public:
  // `observer` outlives the loop.
  BatcherLoop(BatcherOptions options, BatcherObserver* observer);
  // Ends what is still there with UNAVAILABLE and joins the thread.
  ~BatcherLoop();
  BatcherLoop(const BatcherLoop&) = delete;
  BatcherLoop& operator=(const BatcherLoop&) = delete;

  // Its thread-safe part only.
  Batcher& batcher() { return batcher_; }

 private:
  void Run();
  void WakeUp() ABSL_LOCKS_EXCLUDED(mu_);

  BatcherObserver& observer_;
  absl::Mutex mu_;
  absl::CondVar changed_;
  bool woken_ ABSL_GUARDED_BY(mu_) = false;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  Batcher batcher_;
  std::thread thread_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_BATCHER_LOOP_H_
