// Ctrl-C and TERM: the first one cancels the call under way, so that the server stops working on it
// at once; a second one, or one with nothing to cancel, ends the program.
#ifndef HANMO_CLIENT_INTERRUPTS_H_
#define HANMO_CLIENT_INTERRUPTS_H_

#include <signal.h>

#include <functional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace hanmo {

// One at a time in a process: it owns the handlers of SIGINT and SIGTERM while it lives. It has a
// thread of its own. Thread-safe.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  // A signal came while a Scope lived.
  bool received() const ABSL_LOCKS_EXCLUDED(mu_);

  // While it lives, a signal runs `cancel`, on the thread of Interrupts. Scopes do not nest.
  class Scope {
   public:
    Scope(Interrupts* interrupts, std::function<void()> cancel);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Interrupts* const interrupts_;
  };

 private:
  void Watch();
  void OnSignal() ABSL_LOCKS_EXCLUDED(mu_);

  int pipe_[2] = {-1, -1};
  struct sigaction old_int_ = {};
  struct sigaction old_term_ = {};
  std::thread watcher_;

  mutable absl::Mutex mu_;
  std::function<void()> cancel_ ABSL_GUARDED_BY(mu_);
  bool received_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_INTERRUPTS_H_
