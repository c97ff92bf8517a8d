#include "server/lifecycle.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/repository.h"

namespace hanmo {
namespace {

// Waiting pixels and texts; beyond it requests end with RESOURCE_EXHAUSTED.
constexpr size_t kMaxWaitingPixelBytes = 512 << 20;
constexpr size_t kMaxWaitingTextBytes = 64 << 20;
// What is left of the calls after an abort only has to be sent.
constexpr absl::Duration kFarewell = absl::Seconds(1);

std::vector<Metrics::ModelLabel> Labels(const std::vector<Model>& models) {
  std::vector<Metrics::ModelLabel> labels;
  for (const Model& model : models) {
    labels.push_back({model.spec.name, model.spec.kind == ModelKind::kText ? "text" : "picture"});
  }
  return labels;
}

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
  return options;
}

absl::string_view PhaseName(ModelPhase phase) {
  return kModelStates[static_cast<size_t>(phase)];  // in the same order
}

}  // namespace

// Carries what the workers tell to the models' states, the metrics and the log.
class Server::FleetEvents final : public FleetObserver {
 public:
  explicit FleetEvents(Server* server) : server_(*server) {}

  void OnModelLoaded(WorkerId worker, ModelId model, const LoadedModel& loaded) override {
    server_.metrics_.ModelLoaded(model, absl::Seconds(loaded.load_seconds));
    server_.models_.SetLoaded(worker, model, loaded);
    server_.log_.Write(LogLevel::kInfo, "model loaded",
                       {{"model", NameOf(model)},
                        {"worker", int64_t{worker}},
                        {"dtype", loaded.dtype},
                        {"bytes", static_cast<int64_t>(loaded.weight_bytes)},
                        {"seconds", loaded.load_seconds}});
  }
  void OnModelFailed(WorkerId worker, ModelId model, const absl::Status& status) override {
    server_.models_.SetFailed(worker, model, status);
    server_.log_.Write(
        LogLevel::kError, "model failed",
        {{"model", NameOf(model)}, {"worker", int64_t{worker}}, {"reason", status.message()}});
  }
  void OnWorkerUp(WorkerId worker, const std::string& device) override {
    server_.metrics_.WorkerUp(worker);
    server_.log_.Write(LogLevel::kInfo, "worker up",
                       {{"worker", int64_t{worker}}, {"device", device}});
  }
  void OnWorkerLost(WorkerId worker, const std::string& reason) override {
    server_.metrics_.WorkerLost(worker);
    server_.models_.RemoveWorker(worker);
    server_.log_.Write(LogLevel::kWarning, "worker lost",
                       {{"worker", int64_t{worker}}, {"reason", reason}});
  }

 private:
  absl::string_view NameOf(ModelId model) const {
    return server_.models_.models()[model].spec.name;
  }

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

Server::Server(const Config& config, std::vector<Model> models, const std::string& version)
    : config_(config),
      log_(LevelOf(config.log_level), FormatOf(config.log_format)),
      models_(std::move(models)),
      metrics_(Labels(models_.models()), WorkerCount(config), version),
      media_pool_(config.media_threads, kMaxWaitingPixelBytes),
      tokenize_pool_(1, kMaxWaitingTextBytes),
      loop_(BatcherOptionsOf(config), &metrics_),
      context_{&models_,     &loop_.batcher(),
               &media_pool_, &tokenize_pool_,
               &metrics_,    &log_,
               &calls_,      config.preview_bytes_per_second} {}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Config& config,
                                                      const std::string& version) {
  auto scan = ScanRepository(config.model_repository);
  if (!scan.ok()) return scan.status();
  std::vector<Model> models;
  for (ModelSpec& spec : scan->models) models.push_back(OpenModel(std::move(spec)));

  std::unique_ptr<Server> server(new Server(config, std::move(models), version));
  for (const std::string& skipped : scan->skipped) {
    server->log_.Write(LogLevel::kWarning, "folder skipped", {{"reason", skipped}});
  }
  for (const Model& model : server->models_.models()) {
    if (model.spec.status.ok()) continue;
    server->log_.Write(LogLevel::kError, "model failed",
                       {{"model", model.spec.name}, {"reason", model.spec.status.message()}});
  }
  if (server->models_.models().empty()) {
    server->log_.Write(LogLevel::kWarning, "the model repository has no models",
                       {{"folder", config.model_repository}});
  }
  server->PublishStates();
  if (!config.metrics_listen.empty()) {
    auto metrics_server = MetricsServer::Start(config.metrics_listen, server->metrics_);
    if (!metrics_server.ok()) return metrics_server.status();
    server->metrics_server_ = *std::move(metrics_server);
  }
  auto rpc = RpcServer::Start(config, server->context_);
  if (!rpc.ok()) return rpc.status();
  server->rpc_ = *std::move(rpc);
  if (auto status = server->StartFleet(); !status.ok()) return status;
  return server;
}

absl::Status Server::StartFleet() {
  models_.Watch([this] {
    PublishStates();
    rpc_->health().Notify();
  });
  std::vector<FleetModel> fleet_models;
  for (const Model& model : models_.models()) {
    if (!model.spec.status.ok()) continue;
    fleet_models.push_back({model.spec.id, model.spec.name, model.spec.path});
  }
  fleet_events_ = std::make_unique<FleetEvents>(this);
  fleet_ = std::make_unique<Fleet>(FleetOptionsOf(config_), std::move(fleet_models),
                                   &loop_.batcher(), fleet_events_.get());
  return fleet_->Start();
}

void Server::PublishStates() {
  for (const Model& model : models_.models()) {
    metrics_.SetModelState(model.spec.id, PhaseName(models_.phase(model.spec.id)));
  }
}

std::string Server::metrics_address() const {
  return metrics_server_ == nullptr ? "" : metrics_server_->address();
}

void Server::Drain() {
  log_.Write(LogLevel::kInfo, "draining");
  // Without a delay nobody who was told NOT_SERVING may still be served.
  if (config_.shutdown_delay <= absl::ZeroDuration()) loop_.batcher().Drain();
  rpc_->health().Drain();
  absl::SleepFor(config_.shutdown_delay);
  loop_.batcher().Drain();
  if (!calls_.AwaitNone(config_.shutdown_timeout)) {
    log_.Write(LogLevel::kWarning, "requests outlived the shutdown timeout and are aborted");
    loop_.batcher().Abort();
    calls_.AwaitNone(kFarewell);
  }
  rpc_->Shutdown(kFarewell);
  log_.Write(LogLevel::kInfo, "stopped");
}

Server::~Server() {
  // Calls first, as they need the batcher's loop to end; then what feeds results to it.
  if (rpc_ != nullptr) rpc_->Shutdown(absl::ZeroDuration());
  fleet_.reset();
}

}  // namespace hanmo
