#include "server/worker_link/dial.h"

#include <errno.h>
#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/worker_link/wire.h"

namespace hanmo {
namespace {

constexpr absl::string_view kUnix = "unix:";
constexpr absl::string_view kTls = "tls:";

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxWorkerMessageBytes);
  arguments.SetMaxSendMessageSize(kMaxWorkerMessageBytes);
  // A worker's machine may vanish without a word: ask for a sign of life while the stream is open.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // The fleet retries by its own clock: each attempt connects anew.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  return arguments;
}

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read TLS file ", path));
  return text.str();
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials(const TlsFiles& tls) {
  grpc::SslCredentialsOptions options;
  for (auto [path, out] : {std::pair(&tls.ca, &options.pem_root_certs),
                           std::pair(&tls.certificate, &options.pem_cert_chain),
                           std::pair(&tls.key, &options.pem_private_key)}) {
    absl::StatusOr<std::string> text = ReadPem(*path);
    if (!text.ok()) return text.status();
    *out = *std::move(text);
  }
  return grpc::SslCredentials(options);
}

absl::StatusOr<int> ConnectUnix(const std::string& path) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "socket");
  absl::Status status;
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    status =
        absl::UnavailableError(absl::StrCat("cannot connect to ", path, ": ", strerror(errno)));
  } else {
    status = CheckPeerIsSameUser(fd);
  }
  if (status.ok()) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
  }
  close(fd);
  return status;
}

absl::Status CheckHostPort(const std::string& address, absl::string_view host_port) {
  const size_t colon = host_port.rfind(':');
  uint32_t port = 0;
  if (colon == absl::string_view::npos || colon == 0 ||
      !absl::SimpleAtoi(host_port.substr(colon + 1), &port) || port == 0 || port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker address \"", address, "\": host:port with port 1 to 65535 expected"));
  }
  return absl::OkStatus();
}

}  // namespace

bool IsLoopback(const std::string& host_port) {
  return absl::StartsWith(host_port, "127.") || absl::StartsWith(host_port, "localhost:") ||
         absl::StartsWith(host_port, "[::1]:");
}

absl::Status CheckWorkerAddress(const std::string& address) {
  absl::string_view rest = address;
  if (absl::StartsWith(address, kUnix)) {
    rest.remove_prefix(kUnix.size());
    if (rest.empty() || rest.size() >= sizeof(sockaddr_un::sun_path)) {
      return absl::InvalidArgumentError(
          absl::StrCat("worker address \"", address, "\": a path of 1 to ",
                       sizeof(sockaddr_un::sun_path) - 1, " bytes expected"));
    }
    return absl::OkStatus();
  }
  if (absl::StartsWith(address, kTls)) {
    rest.remove_prefix(kTls.size());
    return CheckHostPort(address, rest);
  }
  if (absl::Status status = CheckHostPort(address, rest); !status.ok()) return status;
  if (IsLoopback(address)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "worker address \"", address, "\": in clear on loopback only; use tls:", address));
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> DialWorker(const std::string& address,
                                                          const TlsFiles& tls) {
  if (absl::Status status = CheckWorkerAddress(address); !status.ok()) return status;
  if (absl::StartsWith(address, kUnix)) {
    absl::StatusOr<int> socket = ConnectUnix(address.substr(kUnix.size()));
    if (!socket.ok()) return socket.status();
    return ChannelOverSocket(*socket);
  }
  if (absl::StartsWith(address, kTls)) {
    auto credentials = Credentials(tls);
    if (!credentials.ok()) return credentials.status();
    return grpc::CreateCustomChannel(address.substr(kTls.size()), *credentials, Arguments());
  }
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), Arguments());
}

std::shared_ptr<grpc::Channel> ChannelOverSocket(int socket) {
  return grpc::CreateCustomInsecureChannelFromFd("worker", socket, Arguments());
}

absl::Status CheckPeerIsSameUser(int socket) {
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return absl::ErrnoToStatus(errno, "SO_PEERCRED");
  }
  if (peer.uid == geteuid()) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrCat("the process at the other end runs as user ",
                                                  peer.uid, ", expected ", geteuid()));
}

}  // namespace hanmo
