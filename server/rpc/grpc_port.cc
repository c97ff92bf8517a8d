#include "server/rpc/grpc_port.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/impl/server_builder_option.h"
#include "grpcpp/resource_quota.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"
#include "grpcpp/server_builder.h"
#include "server/rpc/call_counter.h"

namespace hanmo {
namespace {

// How often the TLS files are looked at again.
constexpr unsigned kTlsRefreshSeconds = 10;
constexpr int kMaxMetadataBytes = 16 << 10;

// Linking the reflection library is enough to switch reflection on; this takes it out again.
class WithoutReflection final : public grpc::ServerBuilderOption {
 public:
  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>* plugins) override {
    std::erase_if(*plugins,
                  [](const auto& plugin) { return plugin->name() == "proto_server_reflection"; });
  }
};

int Milliseconds(absl::Duration duration) {
  return static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(duration), INT_MAX));
}

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> Credentials(const Config& config) {
  if (config.tls_cert.empty()) return grpc::InsecureServerCredentials();
  const std::pair<const char*, const std::string&> files[] = {
      {"tls-cert", config.tls_cert},
      {"tls-key", config.tls_key},
      {"tls-client-ca", config.tls_client_ca}};
  for (const auto& [option, file] : files) {
    if (!file.empty() && access(file.c_str(), R_OK) != 0) {
      return absl::InvalidArgumentError(absl::StrCat("--", option, ": cannot read \"", file, "\""));
    }
  }
  auto provider = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      config.tls_key, config.tls_cert, config.tls_client_ca, kTlsRefreshSeconds);
  grpc::experimental::TlsServerCredentialsOptions options(provider);
  options.watch_identity_key_cert_pairs();
  if (config.tls_client_ca.empty()) {
    options.set_cert_request_type(GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  } else {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

void SetLimits(const Config& config, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(config.max_message_bytes));
  builder->SetMaxSendMessageSize(-1);
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS,
                              static_cast<int>(config.max_concurrent_streams));
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMaxMetadataBytes);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(config.keepalive_time));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              Milliseconds(config.keepalive_timeout));
  // Clients may ping as often as every 10 s, also between calls, as service meshes do.
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 10000);
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  if (config.max_connection_age > absl::ZeroDuration()) {
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS,
                                Milliseconds(config.max_connection_age));
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS,
                                Milliseconds(config.max_connection_age_grace));
  }
  // Two servers on one port would each get a part of the calls.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  grpc::ResourceQuota quota("hanmo");
  quota.Resize(config.grpc_memory);
  builder->SetResourceQuota(quota);
}

}  // namespace

absl::StatusOr<std::unique_ptr<GrpcPort>> GrpcPort::Listen(
    const Config& config, absl::string_view option, const std::string& address, Security security,
    const std::vector<grpc::Service*>& services, CallMetrics* calls) {
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (security == Security::kAsConfigured) {
    auto configured = Credentials(config);
    if (!configured.ok()) return configured.status();
    credentials = *std::move(configured);
  }
  // The plugin is a switch of the process; it must be set before the builder exists.
  if (config.reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  std::unique_ptr<GrpcPort> opened(new GrpcPort);
  grpc::ServerBuilder builder;
  if (!config.reflection) builder.SetOption(std::make_unique<WithoutReflection>());
  SetLimits(config, &builder);
  int port = 0;
  builder.AddListeningPort(address, credentials, &port);
  for (grpc::Service* service : services) builder.RegisterService(service);
  if (calls != nullptr) {
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> counting;
    counting.push_back(std::make_unique<CallCounterFactory>(calls));
    builder.experimental().SetInterceptorCreators(std::move(counting));
  }
  opened->server_ = builder.BuildAndStart();
  if (opened->server_ == nullptr) {
    return absl::UnavailableError(
        absl::StrCat("--", option, ": cannot listen on \"", address, "\""));
  }
  opened->address_ = absl::StartsWith(address, "unix:")
                         ? address
                         : absl::StrCat(address.substr(0, address.rfind(':')), ":", port);
  return opened;
}

GrpcPort::~GrpcPort() { Shutdown(absl::ZeroDuration()); }

void GrpcPort::Shutdown(absl::Duration grace) {
  if (server_ == nullptr) return;
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace));
  server_->Wait();
  server_.reset();
}

}  // namespace hanmo
