#include "workers/loading_thread.h"

#include <sys/resource.h>
#include <unistd.h>

#include <utility>

namespace hanmo {
namespace {

// A tenth of what the compute thread gets of a core that both want.
constexpr int kNiceness = 10;

}  // namespace

LoadingThread::LoadingThread(std::function<void()> start_thread)
    : start_thread_(std::move(start_thread)), thread_([this] { Run(); }) {}

LoadingThread::~LoadingThread() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

void LoadingThread::Submit(std::function<void()> task) {
  absl::MutexLock lock(&mu_);
  tasks_.push_back(std::move(task));
}

void LoadingThread::Run() {
  while (true) {
    std::function<void()> task;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &LoadingThread::ready));
      if (stopping_) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    // On a thread that ends with it: libgomp keeps the threads that operators started as long as
    // the one that started them lives, and while there are more than cores it lets none spin, so
    // that each operator of the compute thread would wait for its threads to be woken.
    std::thread([&] {
      // Of this thread, and of those that its operators start.
      setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), kNiceness);
      start_thread_();
      task();
    }).join();
  }
}

}  // namespace hanmo
