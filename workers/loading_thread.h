// Reads models beside the steps: a thread that does one thing after another and gives way to the
// compute thread where both want a core.
#ifndef HANMO_WORKERS_LOADING_THREAD_H_
#define HANMO_WORKERS_LOADING_THREAD_H_

#include <deque>
#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace hanmo {

// Thread-safe.
class LoadingThread {
 public:
  // `start_thread` runs before each task, on its thread.
  explicit LoadingThread(std::function<void()> start_thread);
  // Waits for the task under way; the others are forgotten.
  ~LoadingThread();
  LoadingThread(const LoadingThread&) = delete;
  LoadingThread& operator=(const LoadingThread&) = delete;

  // The server bounds how many there are: one for each model that it asks for.
  void Submit(std::function<void()> task) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  bool ready() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopping_ || !tasks_.empty(); }

  const std::function<void()> start_thread_;
  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_LOADING_THREAD_H_
