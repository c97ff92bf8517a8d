#include "server/worker_link/child.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

std::string Describe(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return absl::StrCat("exit code ", info.si_status);
  const char* name = sigdescr_np(info.si_status);
  return absl::StrCat("signal ", info.si_status, " (", name == nullptr ? "unknown" : name, ")");
}

// This process's environment and what of `defaults` is absent in it; points into both.
std::vector<char*> Environment(const std::vector<std::string>& defaults) {
  std::vector<char*> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) environment.push_back(*entry);
  for (const std::string& entry : defaults) {
    if (getenv(entry.substr(0, entry.find('=')).c_str()) == nullptr) {
      environment.push_back(const_cast<char*>(entry.c_str()));
    }
  }
  environment.push_back(nullptr);
  return environment;
}

// The actions and attributes of one spawn, freed together.
class SpawnPlan {
 public:
  explicit SpawnPlan(int child_socket) {
    posix_spawn_file_actions_init(&actions_);
    // Also clears close-on-exec when both numbers are the same.
    posix_spawn_file_actions_adddup2(&actions_, child_socket, Child::kChildFd);
    posix_spawn_file_actions_addclosefrom_np(&actions_, Child::kChildFd + 1);
    posix_spawnattr_init(&attributes_);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes_, &none);
    posix_spawnattr_setsigdefault(&attributes_, &all);
    posix_spawnattr_setpgroup(&attributes_, 0);
    posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  }
  ~SpawnPlan() {
    posix_spawn_file_actions_destroy(&actions_);
    posix_spawnattr_destroy(&attributes_);
  }
  SpawnPlan(const SpawnPlan&) = delete;

  const posix_spawn_file_actions_t* actions() const { return &actions_; }
  const posix_spawnattr_t* attributes() const { return &attributes_; }

 private:
  posix_spawn_file_actions_t actions_;
  posix_spawnattr_t attributes_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Child>> Child::Spawn(const std::string& program,
                                                    const std::vector<std::string>& args,
                                                    const std::vector<std::string>& defaults) {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return absl::ErrnoToStatus(errno, "socketpair");
  }
  std::vector<char*> argv{const_cast<char*>(program.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  std::vector<char*> environment = Environment(defaults);
  pid_t pid = -1;
  SpawnPlan plan(sockets[1]);
  const int error = posix_spawn(&pid, program.c_str(), plan.actions(), plan.attributes(),
                                argv.data(), environment.data());
  close(sockets[1]);
  if (error != 0) {
    close(sockets[0]);
    return absl::ErrnoToStatus(error, absl::StrCat("cannot start ", program));
  }
  // gRPC expects sockets that don't block.
  fcntl(sockets[0], F_SETFL, fcntl(sockets[0], F_GETFL) | O_NONBLOCK);
  return std::unique_ptr<Child>(new Child(pid, sockets[0]));
}

Child::~Child() {
  Signal(SIGKILL);
  bool reaped;
  {
    absl::MutexLock lock(&mu_);
    reaped = reaped_;
  }
  if (!reaped) Wait();
  if (socket_ >= 0) close(socket_);
}

std::string Child::Wait() {
  siginfo_t info = {};
  // The process stays a zombie until it is reaped under the lock: Signal never hits a stranger
  // that was given the same id.
  while (waitid(P_PID, pid_, &info, WEXITED | WNOWAIT) != 0 && errno == EINTR) {
  }
  absl::MutexLock lock(&mu_);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
  reaped_ = true;
  return Describe(info);
}

void Child::Signal(int signal) {
  absl::MutexLock lock(&mu_);
  if (!reaped_) kill(pid_, signal);
}

}  // namespace hanmo
