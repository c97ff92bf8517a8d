// A few threads for work that event threads must not do: encoding pictures, tokenizing long texts.
#ifndef HANMO_SERVER_MEDIA_TASK_POOL_H_
#define HANMO_SERVER_MEDIA_TASK_POOL_H_

#include <cstddef>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace hanmo {

// First in, first out. Thread-safe.
class TaskPool {
 public:
  // Tasks weigh something (bytes, say); together the waiting ones weigh at most `max_waiting`.
  TaskPool(size_t threads, size_t max_waiting);
  // Runs what is waiting, then joins.
  ~TaskPool();
  TaskPool(const TaskPool&) = delete;
  TaskPool& operator=(const TaskPool&) = delete;

  // False, and the task is not taken, when it would not fit.
  [[nodiscard]] bool Submit(size_t weight, std::function<void()> task);

  // For what is kept until it is known whether a task will need it: it counts like a task that
  // waits. False when it would not fit.
  [[nodiscard]] bool Keep(size_t weight);
  // The end of that: there will be no task,
  void Forget(size_t weight);
  // or this is it.
  void SubmitKept(size_t weight, std::function<void()> task);

 private:
  struct Entry {
    size_t weight;
    std::function<void()> task;
  };

  void Run();
  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return stopping_ || !waiting_.empty(); }

  const size_t max_waiting_;
  absl::Mutex mu_;
  std::deque<Entry> waiting_ ABSL_GUARDED_BY(mu_);
  size_t weight_ ABSL_GUARDED_BY(mu_) = 0;  // of waiting_ and of what is kept
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;  // set at construction
};

}  // namespace hanmo

#endif  // HANMO_SERVER_MEDIA_TASK_POOL_H_
