#include "server/lifecycle.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace hanmo {
namespace {

// Waiting pixels and texts; beyond it requests end with RESOURCE_EXHAUSTED.
constexpr size_t kMaxWaitingPixelBytes = 512 << 20;
constexpr size_t kMaxWaitingTextBytes = 64 << 20;
// What is left of the calls after an abort only has to be sent.
constexpr absl::Duration kFarewell = absl::Seconds(1);

LogLevel LevelOf(const std::string& name) {
  if (name == "debug") return LogLevel::kDebug;
  if (name == "warning") return LogLevel::kWarning;
  return name == "error" ? LogLevel::kError : LogLevel::kInfo;
}

LogFormat FormatOf(const std::string& name) {
  if (name == "auto") return isatty(STDERR_FILENO) != 0 ? LogFormat::kText : LogFormat::kJson;
  return name == "json" ? LogFormat::kJson : LogFormat::kText;
}

uint32_t WorkerCount(const Config& config) {
  return static_cast<uint32_t>(config.worker.empty() ? ExpandDevices(config).size()
                                                     : config.worker.size());
}

Policy PolicyOf(absl::string_view name) {
  if (name == "fcfs") return Policy::kFcfs;
  return name == "static" ? Policy::kStatic : Policy::kHanmo;
}

BatcherOptions BatcherOptionsOf(const Config& config) {
  BatcherOptions options;
  options.policy.policy = PolicyOf(config.policy);
  options.policy.stretch = config.stretch;
  options.policy.text_share = config.text_share / 100.0;
  options.policy.slice = config.slice;
  for (const std::string& entry : config.tenant_weight) {
    const auto weight = ParseTenantWeight(entry);  // checked with the configuration
    if (weight.ok()) options.tenant_weights.insert(*weight);
  }
  options.max_queued_requests = config.max_queued_requests;
  options.max_queued_work = config.max_queued_work;
  options.max_running_samples = config.max_running_samples;
  options.max_picture_batch = config.max_picture_batch;
  options.prefill_chunk_tokens = config.prefill_chunk_tokens;
  options.prefix_cache_bytes = config.prefix_cache_bytes;
  options.speculative_tokens = config.speculative_tokens;
  options.steps_in_flight = config.steps_in_flight;
  options.save_interval_steps = config.save_interval_steps;
  options.max_parked = config.max_parked;
  return options;
}

std::vector<VersionLabel> LabelsOf(const Config& config) {
  std::vector<VersionLabel> labels;
  for (const std::string& entry : config.label) {
    auto label = ParseVersionLabel(entry);  // checked with the configuration
    if (label.ok()) labels.push_back(*std::move(label));
  }
  return labels;
}

MetricsServer::Options MetricsOptionsOf(const Config& config, std::function<bool()> ready) {
  return {config.metrics_listen,
          config.vllm_metrics,
          {{"tls-cert", config.tls_cert},
           {"tls-client-ca", config.tls_client_ca},
           {"worker-tls-ca", config.worker_tls_ca},
           {"worker-tls-cert", config.worker_tls_cert}},
          std::move(ready)};
}

FleetOptions FleetOptionsOf(const Config& config) {
  FleetOptions options;
  if (config.worker.empty()) {
    options.devices = ExpandDevices(config);
    std::error_code error;
    options.worker_program =
        !config.worker_program.empty()
            ? config.worker_program
            : (std::filesystem::read_symlink("/proc/self/exe", error).parent_path() /
               "hanmo-worker")
                  .string();
  }
  options.attach = config.worker;
  options.tls_ca_file = config.worker_tls_ca;
  options.tls_certificate_file = config.worker_tls_cert;
  options.tls_key_file = config.worker_tls_key;
  options.worker_threads = config.worker_threads;
  options.worker_args = config.worker_arg;
  options.dtype = config.dtype == "auto" ? "" : config.dtype;
  if (config.deterministic != "auto") options.deterministic = config.deterministic == "true";
  options.kv_bytes = config.kv_memory;
  options.expert_bytes = config.expert_memory;
  options.max_context_tokens = config.max_context;
  return options;
}

absl::string_view PhaseName(ModelPhase phase) {
  return kModelStates[static_cast<size_t>(phase)];  // in the same order
}

// Triton's RepositoryModelLoad and RepositoryModelUnload.
class TritonControl final : public RepositoryControl {
 public:
  explicit TritonControl(ModelControl* control) : control_(*control) {}
  std::function<void()> Load(const std::string& name, Done done) override {
    auto operation = control_.Load(
        name, 0, [done = std::move(done)](const auto& loaded) { done(loaded.status()); });
    return [this, operation] { control_.Cancel(*operation); };
  }
  void Unload(const std::string& name, Done done) override {
    control_.Unload(name, 0, [done = std::move(done)](const auto& gone) { done(gone.status()); });
  }

 private:
  ModelControl& control_;
};

}  // namespace

// Carries what the workers tell to the models' states, the metrics and the log.
class Server::FleetEvents final : public FleetObserver {
 public:
  explicit FleetEvents(Server* server) : server_(*server) {}

  void OnModelLoaded(WorkerId worker, ModelId model, const LoadedModel& loaded) override {
    server_.figures_.ModelLoaded(NameOf(model), absl::Seconds(loaded.load_seconds));
    server_.models_.SetLoaded(worker, model, loaded);
    server_.control_.ModelLoaded();
    server_.log_.Write(LogLevel::kInfo, "model loaded",
                       {{"model", NameOf(model)},
                        {"worker", int64_t{worker}},
                        {"dtype", loaded.dtype},
                        {"bytes", static_cast<int64_t>(loaded.weight_bytes)},
                        {"seconds", loaded.load_seconds}});
  }
  void OnModelFailed(WorkerId worker, ModelId model, const absl::Status& status) override {
    server_.figures_.ModelLoadFailed(NameOf(model));
    server_.models_.SetFailed(worker, model, status);
    server_.log_.Write(
        LogLevel::kError, "model failed",
        {{"model", NameOf(model)}, {"worker", int64_t{worker}}, {"reason", status.message()}});
  }
  void OnModelUnloaded(WorkerId worker, ModelId model) override {
    server_.control_.ModelUnloaded(worker, model);
  }
  void OnWorkerUp(WorkerId worker, const std::string& device, uint64_t memory) override {
    server_.figures_.WorkerUp(worker, memory);
    server_.control_.WorkerUp(worker);
    server_.log_.Write(LogLevel::kInfo, "worker up",
                       {{"worker", int64_t{worker}}, {"device", device}});
  }
  void OnWorkerLost(WorkerId worker, const std::string& reason) override {
    server_.figures_.WorkerLost(worker);
    server_.models_.RemoveWorker(worker);
    server_.control_.WorkerLost(worker);
    server_.log_.Write(LogLevel::kWarning, "worker lost",
                       {{"worker", int64_t{worker}}, {"reason", reason}});
  }

 private:
  std::string NameOf(ModelId model) const { return server_.models_.Status(model).name; }

  Server& server_;
};

std::vector<std::string> ExpandDevices(const Config& config) {
  std::vector<std::string> devices;
  for (const std::string& device : config.devices) {
    if (device != "auto") {
      devices.push_back(device);
      continue;
    }
    std::error_code error;
    for (int i = 0; std::filesystem::exists(absl::StrCat("/dev/nvidia", i), error); ++i) {
      devices.push_back(absl::StrCat("cuda:", i));
    }
    if (devices.empty()) devices.push_back("cpu");
  }
  std::vector<std::string> expanded;
  for (const std::string& device : devices) expanded.insert(expanded.end(), config.workers, device);
  return expanded;
}

Server::Server(const Config& config, const std::string& version)
    : config_(config),
      log_(LevelOf(config.log_level), FormatOf(config.log_format)),
      metrics_(config.metrics_listen.empty()
                   ? nullptr
                   : std::make_unique<Metrics>(WorkerCount(config), version)),
      figures_(metrics_ != nullptr ? *metrics_ : unobserved_),
      media_pool_(config.media_threads, kMaxWaitingPixelBytes),
      tokenize_pool_(1, kMaxWaitingTextBytes),
      loop_(BatcherOptionsOf(config), &figures_),
      context_{&models_,     &loop_.batcher(),
               &media_pool_, &tokenize_pool_,
               &figures_,    &log_,
               &calls_,      config.preview_bytes_per_second,
               version},
      control_({config.model_repository, config.model_memory, config.max_context}, &models_,
               &loop_.batcher(), &figures_, &log_) {
  if (metrics_ == nullptr) return;
  metrics_->SetQueueLimit(config.max_queued_requests);
  for (const auto& [tenant, weight] : BatcherOptionsOf(config).tenant_weights) {
    metrics_->tenants().Add(tenant);
  }
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Config& config,
                                                      const std::string& version) {
  std::unique_ptr<Server> server(new Server(config, version));
  if (!config.otlp_endpoint.empty()) {
    auto tracer = Tracer::Create({config.otlp_endpoint, config.trace_one_in, version,
                                  [log = &server->log_](absl::string_view fault) {
                                    log->Write(LogLevel::kWarning, "traces are not delivered",
                                               {{"reason", fault}});
                                  }});
    if (!tracer.ok()) {
      return absl::Status(tracer.status().code(),
                          absl::StrCat("otlp-endpoint: ", tracer.status().message()));
    }
    server->tracer_ = *std::move(tracer);
    server->context_.tracer = server->tracer_.get();
  }
  auto models = server->control_.ServeRepository(config.load, LabelsOf(config));
  if (!models.ok()) return models.status();
  server->PublishStates();
  auto rpc = RpcServer::Start(config, server->context_);
  if (!rpc.ok()) return rpc.status();
  server->rpc_ = *std::move(rpc);
  if (server->metrics_ != nullptr) {
    const HealthService& health = server->rpc_->health();
    const auto ready = [&health] {
      return health.StateOf("readiness") == grpc::health::v1::HealthCheckResponse::SERVING;
    };
    auto metrics_server = MetricsServer::Start(MetricsOptionsOf(config, ready), *server->metrics_);
    if (!metrics_server.ok()) return metrics_server.status();
    server->metrics_server_ = *std::move(metrics_server);
  }
  if (auto status = server->StartFleet(*std::move(models)); !status.ok()) return status;
  if (auto status = server->StartAdmin(); !status.ok()) return status;
  return server;
}

absl::Status Server::StartFleet(std::vector<FleetModel> models) {
  models_.Watch([this] {
    PublishStates();
    rpc_->NotifyHealth();
    control_.ModelChanged();
  });
  figures_.WatchOverload([this] { rpc_->NotifyHealth(); });
  fleet_events_ = std::make_unique<FleetEvents>(this);
  fleet_ = std::make_unique<Fleet>(FleetOptionsOf(config_), std::move(models), &loop_.batcher(),
                                   fleet_events_.get());
  if (auto status = fleet_->Start(); !status.ok()) return status;
  control_.Start(fleet_.get());
  return absl::OkStatus();
}

absl::Status Server::StartAdmin() {
  if (config_.admin_listen.empty()) return absl::OkStatus();
  admin_ =
      std::make_unique<AdminService>(&control_, &models_, &calls_, [this] { StopAccepting(); });
  repository_control_ = std::make_unique<TritonControl>(&control_);
  admin_context_ = context_;
  admin_context_.repository_control = repository_control_.get();
  admin_inference_ = std::make_unique<OpenInferenceService>(admin_context_, rpc_->health());
  auto port = GrpcPort::Listen(config_, "admin-listen", config_.admin_listen,
                               GrpcPort::Security::kAsConfigured,
                               {admin_.get(), admin_inference_.get()}, figures_.calls());
  if (!port.ok()) return port.status();
  admin_port_ = *std::move(port);
  return absl::OkStatus();
}

void Server::PublishStates() {
  for (const ModelListing& listing : models_.List()) {
    ModelPhase phase = ModelPhase::kUnloaded;
    for (const ModelListing::Version& version : listing.versions) {
      if (version.spec.version == listing.chosen) phase = version.phase;
    }
    figures_.SetModelState(listing.name, PhaseName(phase));
  }
}

std::string Server::metrics_address() const {
  return metrics_server_ == nullptr ? "" : metrics_server_->address();
}

std::string Server::admin_address() const {
  return admin_port_ == nullptr ? "" : admin_port_->address();
}

void Server::StopAccepting() {
  absl::MutexLock lock(&stopping_);
  if (refusing_) return;
  log_.Write(LogLevel::kInfo, "draining");
  // Without a delay nobody who was told NOT_SERVING may still be served.
  if (config_.shutdown_delay <= absl::ZeroDuration()) loop_.batcher().Drain();
  rpc_->DrainHealth();
  absl::SleepFor(config_.shutdown_delay);
  loop_.batcher().Drain();
  refusing_ = true;
}

void Server::Drain() {
  StopAccepting();
  if (!calls_.AwaitNone(config_.shutdown_timeout)) {
    log_.Write(LogLevel::kWarning, "requests outlived the shutdown timeout and are aborted");
    loop_.batcher().Abort();
    calls_.AwaitNone(kFarewell);
  }
  if (admin_port_ != nullptr) {
    admin_inference_->EndStreams();
    admin_port_->Shutdown(kFarewell);
  }
  rpc_->Shutdown(kFarewell);
  log_.Write(LogLevel::kInfo, "stopped");
}

Server::~Server() {
  metrics_server_.reset();  // asks the health service
  // Calls first, as they need the batcher's loop to end; then what feeds results to it.
  control_.Stop();
  if (admin_port_ != nullptr) admin_port_->Shutdown(absl::ZeroDuration());
  admin_.reset();
  if (rpc_ != nullptr) rpc_->Shutdown(absl::ZeroDuration());
  fleet_.reset();
}

}  // namespace hanmo
