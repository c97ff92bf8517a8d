// A child process on an inherited socket pair.
#ifndef HANMO_SERVER_WORKER_LINK_CHILD_H_
#define HANMO_SERVER_WORKER_LINK_CHILD_H_

#include <sys/types.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"

namespace hanmo {

class Child {
 public:
  // The child's end of the socket pair.
  static constexpr int kChildFd = 3;

  // Starts `program` (a path) with `args` in a process group of its own, so that a Ctrl-C at the
  // server's terminal lets the server drain first. The child inherits standard input, output and
  // error and kChildFd, nothing else; signals are unblocked and have their default actions. Its
  // environment is this process's, and the "NAME=value" of `defaults` where NAME is not set.
  // NOT_FOUND or PERMISSION_DENIED when the program can't be run, RESOURCE_EXHAUSTED when the
  // system has no room for another process.
  static absl::StatusOr<std::unique_ptr<Child>> Spawn(
      const std::string& program, const std::vector<std::string>& args,
      const std::vector<std::string>& defaults = {});
  // Ends the process if it still runs, and reaps it.
  ~Child();
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  pid_t pid() const { return pid_; }
  // The parent's end, once; the caller owns it.
  int TakeSocket() { return std::exchange(socket_, -1); }

  // Waits for the end of the process, reaps it and says how it ended: "exit code 1", "signal 9
  // (Killed)". Call once, from one thread. A child asking for its parent's death signal gets it
  // when the thread that called Spawn ends: Spawn and Wait belong on the same thread.
  std::string Wait();
  // Sends `signal` unless the process is reaped. Thread-safe.
  void Signal(int signal) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  Child(pid_t pid, int socket) : pid_(pid), socket_(socket) {}

  const pid_t pid_;
  int socket_;
  absl::Mutex mu_;
  bool reaped_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_WORKER_LINK_CHILD_H_
