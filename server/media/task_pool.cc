#include "server/media/task_pool.h"

#include <utility>

namespace hanmo {

TaskPool::TaskPool(size_t threads, size_t max_waiting) : max_waiting_(max_waiting) {
  for (size_t i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

TaskPool::~TaskPool() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  for (std::thread& thread : threads_) thread.join();
}

bool TaskPool::Submit(size_t weight, std::function<void()> task) {
  if (!Keep(weight)) return false;
  SubmitKept(weight, std::move(task));
  return true;
}

bool TaskPool::Keep(size_t weight) {
  absl::MutexLock lock(&mu_);
  if (weight > max_waiting_ - weight_) return false;
  weight_ += weight;
  return true;
}

void TaskPool::Forget(size_t weight) {
  absl::MutexLock lock(&mu_);
  weight_ -= weight;
}

void TaskPool::SubmitKept(size_t weight, std::function<void()> task) {
  absl::MutexLock lock(&mu_);
  waiting_.push_back({weight, std::move(task)});
}

void TaskPool::Run() {
  while (true) {
    Entry entry;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &TaskPool::HasWork));
      if (waiting_.empty()) return;
      entry = std::move(waiting_.front());
      waiting_.pop_front();
      weight_ -= entry.weight;
    }
    entry.task();
  }
}

}  // namespace hanmo
