#include "client/interrupts.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <utility>

#include "client/exit_code.h"

namespace hanmo {
namespace {

constexpr char kSignal = 's';
constexpr char kEnd = 'e';

// A signal handler can reach globals only.
std::atomic<int> handler_pipe{-1};

void NoteSignal(int) {
  const int saved = errno;
  [[maybe_unused]] const ssize_t written = write(handler_pipe.load(), &kSignal, 1);
  errno = saved;
}

}  // namespace

Interrupts::Interrupts() {
  if (pipe2(pipe_, O_CLOEXEC) != 0) std::abort();  // out of descriptors before anything began
  handler_pipe = pipe_[1];
  watcher_ = std::thread([this] { Watch(); });
  struct sigaction action = {};
  action.sa_handler = NoteSignal;
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, &old_int_);
  sigaction(SIGTERM, &action, &old_term_);
}

Interrupts::~Interrupts() {
  sigaction(SIGINT, &old_int_, nullptr);
  sigaction(SIGTERM, &old_term_, nullptr);
  [[maybe_unused]] const ssize_t written = write(pipe_[1], &kEnd, 1);
  watcher_.join();
  close(pipe_[0]);
  close(pipe_[1]);
}

bool Interrupts::received() const {
  absl::MutexLock lock(&mu_);
  return received_;
}

void Interrupts::Watch() {
  char byte = 0;
  while (true) {
    const ssize_t size = read(pipe_[0], &byte, 1);
    if (size < 0 && errno == EINTR) continue;
    if (size != 1 || byte == kEnd) return;
    OnSignal();
  }
}

void Interrupts::OnSignal() {
  absl::MutexLock lock(&mu_);
  if (received_ || cancel_ == nullptr) std::_Exit(static_cast<int>(ExitCode::kInterrupted));
  received_ = true;
  cancel_();
}

Interrupts::Scope::Scope(Interrupts* interrupts, std::function<void()> cancel)
    : interrupts_(interrupts) {
  absl::MutexLock lock(&interrupts_->mu_);
  interrupts_->cancel_ = std::move(cancel);
}

Interrupts::Scope::~Scope() {
  absl::MutexLock lock(&interrupts_->mu_);
  interrupts_->cancel_ = nullptr;
}

}  // namespace hanmo
