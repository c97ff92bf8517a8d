#include "workers/serving.h"

#include <errno.h>
#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/server_posix.h>
#include <poll.h>
#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "server/worker_link/dial.h"
#include "workers/fault.h"
#include "workers/service.h"

namespace hanmo {
namespace {

// Calls still open at the end get this long; the server treats the loss as any other.
constexpr absl::Duration kShutdownGrace = absl::Milliseconds(100);

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read TLS file ", path));
  return text.str();
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> Credentials(const WorkerOptions& options) {
  grpc::SslServerCredentialsOptions ssl;
  absl::StatusOr<std::string> key = ReadPem(options.tls_key_file);
  absl::StatusOr<std::string> certificate = ReadPem(options.tls_certificate_file);
  if (!key.ok()) return key.status();
  if (!certificate.ok()) return certificate.status();
  ssl.pem_key_cert_pairs.push_back({*key, *certificate});
  if (!options.tls_ca_file.empty()) {
    absl::StatusOr<std::string> ca = ReadPem(options.tls_ca_file);
    if (!ca.ok()) return ca.status();
    ssl.pem_root_certs = *ca;
    ssl.client_certificate_request = GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY;
  }
  return grpc::SslServerCredentials(ssl);
}

void Configure(grpc::ServerBuilder* builder, WorkerService* service) {
  builder->RegisterService(service);
  builder->SetMaxReceiveMessageSize(kMaxWorkerMessageBytes);
  builder->SetMaxSendMessageSize(kMaxWorkerMessageBytes);
  // One stream, and one thread to refuse a second one; the cores belong to the compute threads.
  builder->SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder->SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 2);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
}

// A unix socket of our own in front of gRPC, so that the peer of every connection can be checked.
class UnixListener {
 public:
  static absl::StatusOr<std::unique_ptr<UnixListener>> Open(const std::string& path,
                                                            grpc::Server* server);
  ~UnixListener() {
    shutdown(fd_, SHUT_RDWR);  // wakes accept
    accept_.join();
    close(fd_);
    unlink(path_.c_str());
  }

 private:
  UnixListener(int fd, std::string path, grpc::Server* server)
      : fd_(fd), path_(std::move(path)), server_(server), accept_([this] { Accept(); }) {}

  void Accept() {
    while (true) {
      const int peer = accept4(fd_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (peer < 0 && (errno == EINTR || errno == ECONNABORTED)) continue;
      if (peer < 0) return;
      if (absl::Status status = CheckPeerIsSameUser(peer); !status.ok()) {
        spdlog::warn("connection refused: {}", std::string(status.message()));
        close(peer);
        continue;
      }
      grpc::AddInsecureChannelFromFd(server_, peer);
    }
  }

  const int fd_;
  const std::string path_;
  grpc::Server* const server_;
  std::thread accept_;
};

absl::StatusOr<std::unique_ptr<UnixListener>> UnixListener::Open(const std::string& path,
                                                                 grpc::Server* server) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const auto* generic = reinterpret_cast<const sockaddr*>(&address);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "socket");
  // A socket left behind by a killed worker refuses connections; one that is served stays.
  if (connect(fd, generic, sizeof(address)) == 0) {
    close(fd);
    return absl::UnavailableError(absl::StrCat("--listen: ", path, " is in use"));
  }
  struct stat existing;
  if (stat(path.c_str(), &existing) == 0 && S_ISSOCK(existing.st_mode)) unlink(path.c_str());
  const mode_t mask = umask(0177);
  const bool bound = bind(fd, generic, sizeof(address)) == 0;
  umask(mask);
  if (!bound || listen(fd, 4) != 0) {
    absl::Status status = absl::ErrnoToStatus(errno, absl::StrCat("--listen: ", path));
    close(fd);
    return status;
  }
  return std::unique_ptr<UnixListener>(new UnixListener(fd, path, server));
}

// Until the server's end of the socket is closed, which also happens before there is a stream, or
// `stream_ended` (an eventfd) counts.
void AwaitServerGone(int socket, int stream_ended) {
  pollfd watched[] = {{socket, POLLRDHUP, 0}, {stream_ended, POLLIN, 0}};
  while (poll(watched, 2, -1) < 0 && errno == EINTR) {
  }
}

absl::Status ServeInherited(const WorkerOptions& options, grpc::ServerBuilder* builder,
                            int stream_ended) {
  std::unique_ptr<grpc::Server> server = builder->BuildAndStart();
  if (server == nullptr) return absl::InternalError("cannot start the gRPC server");
  if (fcntl(options.fd, F_SETFL, O_NONBLOCK) != 0) {
    return absl::InvalidArgumentError("--fd: a connected socket expected");
  }
  const int watched = fcntl(options.fd, F_DUPFD_CLOEXEC, 0);  // gRPC closes its own
  grpc::AddInsecureChannelFromFd(server.get(), options.fd);
  AwaitServerGone(watched, stream_ended);
  close(watched);
  server->Shutdown(absl::ToChronoTime(absl::Now() + kShutdownGrace));
  return absl::OkStatus();
}

absl::Status ServeListening(const WorkerOptions& options, grpc::ServerBuilder* builder,
                            const sigset_t& signals) {
  if (absl::Status status = CheckWorkerAddress(options.listen); !status.ok()) return status;
  absl::string_view address = options.listen;
  const bool is_unix = absl::ConsumePrefix(&address, "unix:");
  if (!is_unix) {
    std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
    if (absl::ConsumePrefix(&address, "tls:")) {
      auto tls = Credentials(options);
      if (!tls.ok()) return tls.status();
      credentials = *std::move(tls);
    }
    builder->AddListeningPort(std::string(address), credentials);
  }
  std::unique_ptr<grpc::Server> server = builder->BuildAndStart();
  if (server == nullptr) {
    return absl::UnavailableError(absl::StrCat("--listen: cannot listen on ", options.listen));
  }
  std::unique_ptr<UnixListener> listener;
  if (is_unix) {
    auto opened = UnixListener::Open(std::string(address), server.get());
    if (!opened.ok()) return opened.status();
    listener = *std::move(opened);
  }
  spdlog::info("listening on {}", options.listen);
  int signal = 0;
  sigwait(&signals, &signal);
  spdlog::info("ending on signal {}", signal);
  listener.reset();
  server->Shutdown(absl::ToChronoTime(absl::Now() + kShutdownGrace));
  return absl::OkStatus();
}

}  // namespace

WorkerOptions ParseWorkerFlags(int argc, char** argv) {
  WorkerOptions options;
  CLI::App app("Runs the steps of generative models for hanmo-server.", "hanmo-worker");
  app.set_version_flag("--version", "hanmo-worker 0.1.0");
  auto* fd = app.add_option("--fd", options.fd, "Serve the server on this inherited socket")
                 ->check(CLI::Range(0, 1 << 20));
  auto* listen = app.add_option("--listen", options.listen,
                                "Wait for a server at unix:/path, tls:host:port, or host:port "
                                "(loopback only)");
  fd->excludes(listen);
  app.add_option("--tls-cert", options.tls_certificate_file, "PEM certificate for tls:")
      ->check(CLI::ExistingFile);
  app.add_option("--tls-key", options.tls_key_file, "PEM key for tls:")->check(CLI::ExistingFile);
  app.add_option("--tls-ca", options.tls_ca_file,
                 "PEM certificates that the server's certificate must come from (mutual TLS)")
      ->check(CLI::ExistingFile);
  app.add_option("--device", options.device, "cpu or cuda:N")->capture_default_str();
  app.add_option("--threads", options.threads, "Compute threads; 0 takes every core")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.add_option("--log-level", options.log_level, "Lowest level to log")
      ->check(CLI::IsMember({"debug", "info", "warn", "error"}))
      ->capture_default_str();
  app.add_option("--fault", options.fault,
                 "For tests: abort-on-seed:N[@step:K] aborts the process when a sample with seed N "
                 "takes part in its K-th step (default 1)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    exit(app.exit(error) == 0 ? 0 : 2);
  }
  if (options.fd < 0 && options.listen.empty()) {
    fprintf(stderr, "hanmo-worker: one of --fd and --listen is required\n");
    exit(2);
  }
  if (options.threads == 0) options.threads = std::max(1u, std::thread::hardware_concurrency());
  return options;
}

void DieWithParent() { prctl(PR_SET_PDEATHSIG, SIGKILL); }

absl::Status ServeWorker(const WorkerOptions& options, Executor* executor,
                         std::function<void()> start_thread) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("hanmo-worker"));
  spdlog::set_pattern(
      R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","program":"hanmo-worker","message":"%v"})");
  spdlog::set_level(spdlog::level::from_str(options.log_level));
  std::unique_ptr<FaultyExecutor> faulty;
  if (!options.fault.empty()) {
    absl::StatusOr<Fault> fault = ParseFault(options.fault);
    if (!fault.ok()) return fault.status();
    spdlog::warn("will abort on purpose: --fault={}", options.fault);
    faulty = std::make_unique<FaultyExecutor>(*fault, executor);
    executor = faulty.get();
  }
  // Blocked before any thread starts, so that main alone takes them.
  sigset_t signals;
  sigemptyset(&signals);
  if (options.fd < 0) {
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  }
  const int ended = eventfd(0, EFD_CLOEXEC);
  if (ended < 0) return absl::ErrnoToStatus(errno, "eventfd");
  const absl::Cleanup close_ended = [ended] { close(ended); };
  WorkerService service(executor, std::move(start_thread), [ended] {
    spdlog::debug("stream ended");
    eventfd_write(ended, 1);
  });
  grpc::ServerBuilder builder;
  Configure(&builder, &service);
  return options.fd >= 0 ? ServeInherited(options, &builder, ended)
                         : ServeListening(options, &builder, signals);
}

}  // namespace hanmo
