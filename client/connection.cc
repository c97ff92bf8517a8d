#include "client/connection.h"

#include <chrono>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/flag_group.h"
#include "client/input_file.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace hanmo {
namespace {

// A final event holds whole texts: 16 of them with 20 log probabilities a token can pass gRPC's
// 4 MiB.
constexpr int kMaxMessageBytes = 64 << 20;
constexpr size_t kMaxPemBytes = 1 << 20;

absl::Status CheckFlags(const ConnectionFlags& flags) {
  if (!absl::StrContains(flags.server, ':')) {
    return absl::InvalidArgumentError(
        absl::StrCat("--server: must be HOST:PORT or unix:PATH, got \"", flags.server, "\""));
  }
  if (flags.cert_file.empty() != flags.key_file.empty()) {
    return absl::InvalidArgumentError("--cert and --key: must be given together");
  }
  return absl::OkStatus();
}

// gRPC takes PEM texts, not files, and has no word on what is wrong with one. `kind` is how such a
// text begins.
struct PemFile {
  absl::string_view flag;
  const std::string& path;
  absl::string_view kind;
  std::string* pem;
};

absl::Status ReadPem(const PemFile& file) {
  if (file.path.empty()) return absl::OkStatus();
  absl::StatusOr<std::string> text = ReadFile(file.path, kMaxPemBytes);
  if (!text.ok()) return text.status();
  if (!absl::StrContains(*text, file.kind)) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.flag, ": ", file.path, " is no PEM file with a ", file.kind));
  }
  *file.pem = *std::move(text);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> MakeCredentials(
    const ConnectionFlags& flags) {
  if (!flags.tls && flags.ca_file.empty() && flags.cert_file.empty()) {
    return grpc::InsecureChannelCredentials();
  }
  grpc::SslCredentialsOptions options;
  for (const PemFile& file :
       {PemFile{"--ca", flags.ca_file, "CERTIFICATE", &options.pem_root_certs},
        PemFile{"--cert", flags.cert_file, "CERTIFICATE", &options.pem_cert_chain},
        PemFile{"--key", flags.key_file, "PRIVATE KEY", &options.pem_private_key}}) {
    if (auto status = ReadPem(file); !status.ok()) return status;
  }
  return grpc::SslCredentials(options);
}

// gRPC would send calls to this machine through an http_proxy, which cannot reach it.
bool IsLoopback(absl::string_view server) {
  return absl::StartsWith(server, "localhost:") || absl::StartsWith(server, "127.") ||
         absl::StartsWith(server, "[::1]:");
}

}  // namespace

void AddConnectionFlags(CLI::App* app, const std::string& default_timeout, ConnectionFlags* flags) {
  FlagGroup group(app, "Connection");
  group
      .Text({"--server", "HOST:PORT", absl::StrCat(flags->port, "; unix:PATH works too"),
             absl::StrCat(flags->environment, ", else ", flags->server)},
            &flags->server)
      ->envname(flags->environment);
  group.Time({"--timeout", "TIME", "give up after this long, such as 30s or 2m", default_timeout},
             "never", [flags](absl::Duration timeout) { flags->timeout = timeout; });
  group.Switch({"--tls", "", "connect with TLS, trusting the system's certificates"},
               [flags] { flags->tls = true; });
  group.Text({"--ca", "FILE", "connect with TLS, trusting these certificates (PEM)"},
             &flags->ca_file);
  group.Text({"--cert", "FILE", "certificate of this client (PEM), for mutual TLS; needs --key"},
             &flags->cert_file);
  group.Text({"--key", "FILE", "private key of --cert (PEM)"}, &flags->key_file);
  group.Text({"--server-name", "NAME", "name in the server's certificate, where it is not HOST"},
             &flags->server_name);
}

absl::StatusOr<std::shared_ptr<grpc::Channel>> OpenChannel(const ConnectionFlags& flags) {
  const auto channels = OpenChannels(flags, 1);
  if (!channels.ok()) return channels.status();
  return channels->front();
}

absl::StatusOr<std::vector<std::shared_ptr<grpc::Channel>>> OpenChannels(
    const ConnectionFlags& flags, uint32_t count) {
  if (auto status = CheckFlags(flags); !status.ok()) return status;
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetUserAgentPrefix("hanmo");
  // Whoever waits for a server that starts wants to know soon after it has.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  if (IsLoopback(flags.server)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (!flags.server_name.empty()) arguments.SetSslTargetNameOverride(flags.server_name);
  const auto credentials = MakeCredentials(flags);
  if (!credentials.ok()) return credentials.status();
  // Channels to one address would share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  std::vector<std::shared_ptr<grpc::Channel>> channels(count);
  for (auto& channel : channels) {
    channel = grpc::CreateCustomChannel(flags.server, *credentials, arguments);
  }
  return channels;
}

Call::Call(const Console& console, absl::Duration timeout)
    : scope_(console.interrupts, [this] { context_.TryCancel(); }) {
  if (timeout == absl::ZeroDuration()) return;
  context_.set_deadline(std::chrono::system_clock::now() + absl::ToChronoMicroseconds(timeout));
}

}  // namespace hanmo
