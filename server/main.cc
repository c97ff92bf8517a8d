// hanmo-server: serves generative models over gRPC.
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "google/protobuf/stubs/common.h"
#include "server/config.h"
#include "server/lifecycle.h"
#if GOOGLE_PROTOBUF_VERSION < 3022000
#include "google/protobuf/stubs/logging.h"
#endif

namespace hanmo {
namespace {

// What sysexits.h calls EX_USAGE and EX_UNAVAILABLE.
constexpr int kBadUsage = 64;
constexpr int kCannotStart = 69;

std::vector<std::pair<std::string, std::string>> Environment() {
  std::vector<std::pair<std::string, std::string>> variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    variables.push_back(absl::StrSplit(*entry, absl::MaxSplits('=', 1)));
  }
  return variables;
}

// Every connection is a descriptor; running out of them has ended gRPC's accepting for good.
void RaiseFileLimit() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// It writes two lines to stderr for each request that is not UTF-8; the caller is told instead.
void SilenceProtobuf() {
#if GOOGLE_PROTOBUF_VERSION < 3022000
  google::protobuf::SetLogHandler(nullptr);
#endif
}

// Debian's abseil is built with its deadlock detection, which would take a global lock at each lock
// of ours and gRPC's. Tests keep it.
void SkipDeadlockDetection() {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

sigset_t EndSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

int Serve(const Config& config) {
  // Blocked before the first thread, so that only sigwait below takes them.
  const sigset_t signals = EndSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
  RaiseFileLimit();
  SilenceProtobuf();
  SkipDeadlockDetection();

  auto server = Server::Start(config, HANMO_VERSION);
  if (!server.ok()) {
    std::fprintf(stderr, "hanmo-server: %s\n", std::string(server.status().message()).c_str());
    return kCannotStart;
  }
  std::printf("listening on %s\n", (*server)->address().c_str());
  if (!(*server)->metrics_address().empty()) {
    std::printf("metrics on %s\n", (*server)->metrics_address().c_str());
  }
  if (!(*server)->health_address().empty()) {
    std::printf("health on %s\n", (*server)->health_address().c_str());
  }
  if (!(*server)->admin_address().empty()) {
    std::printf("admin on %s\n", (*server)->admin_address().c_str());
  }
  std::fflush(stdout);

  int received = 0;
  sigwait(&signals, &received);
  // A second signal ends the process at once; the workers end with their sockets.
  signal(SIGTERM, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
  (*server)->Drain();
  return 0;
}

int Main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  auto line = ParseCommandLine(arguments, Environment());
  if (!line.ok()) {
    std::fprintf(stderr, "hanmo-server: %s\n", std::string(line.status().message()).c_str());
    return kBadUsage;
  }
  switch (line->action) {
    case ConfigAction::kHelp:
      std::fputs(ConfigHelp().c_str(), stdout);
      return 0;
    case ConfigAction::kVersion:
      std::puts("hanmo-server " HANMO_VERSION);
      return 0;
    case ConfigAction::kPrintConfig:
      std::fputs(ConfigYaml(line->config).c_str(), stdout);
      return 0;
    case ConfigAction::kServe:
      return Serve(line->config);
  }
  return kBadUsage;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) { return hanmo::Main(argc, argv); }
