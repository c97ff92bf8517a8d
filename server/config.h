// hanmo-server's configuration: one schema, read from flags, the environment, a YAML file and
// defaults, in that order of precedence. A key that the schema lacks is an error wherever it
// stands.
#ifndef HANMO_SERVER_CONFIG_H_
#define HANMO_SERVER_CONFIG_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace hanmo {

// Every field is an option of config_options.cc, which has its meaning, unit and range.
struct Config {
  std::string listen = "127.0.0.1:8001";
  std::string metrics_listen = "127.0.0.1:8002";
  bool vllm_metrics = false;
  std::string health_listen;
  std::string admin_listen;
  uint64_t max_message_bytes = 32 << 20;
  uint32_t max_concurrent_streams = 256;
  uint64_t grpc_memory = 256 << 20;
  absl::Duration keepalive_time = absl::Minutes(2);
  absl::Duration keepalive_timeout = absl::Seconds(20);
  absl::Duration max_connection_age = absl::ZeroDuration();
  absl::Duration max_connection_age_grace = absl::Minutes(5);
  bool reflection = true;
  std::string tls_cert;
  std::string tls_key;
  std::string tls_client_ca;

  std::string model_repository;
  std::vector<std::string> load = {"*"};
  std::vector<std::string> label;
  uint64_t model_memory = 0;

  uint32_t workers = 1;
  uint32_t worker_threads = 0;
  std::vector<std::string> devices = {"auto"};
  std::string dtype = "auto";
  std::string deterministic = "auto";
  uint64_t kv_memory = 0;
  uint64_t expert_memory = 0;
  uint32_t max_context = 0;
  std::string worker_program;
  std::vector<std::string> worker_arg;
  std::vector<std::string> worker;
  std::string worker_tls_ca;
  std::string worker_tls_cert;
  std::string worker_tls_key;

  std::string policy = "hanmo";
  uint32_t stretch = 8;
  uint32_t text_share = 60;
  absl::Duration slice = absl::Milliseconds(30);
  std::vector<std::string> tenant_weight;
  uint32_t max_queued_requests = 1024;
  absl::Duration max_queued_work = absl::Minutes(10);
  uint32_t max_running_samples = 64;
  uint32_t max_picture_batch = 8;
  uint32_t prefill_chunk_tokens = 512;
  uint64_t prefix_cache_bytes = 256 << 20;
  uint64_t preview_bytes_per_second = 1 << 20;
  uint32_t speculative_tokens = 8;
  uint32_t steps_in_flight = 2;
  uint32_t save_interval_steps = 5;
  absl::Duration max_parked = absl::Seconds(10);
  uint32_t media_threads = 1;

  absl::Duration shutdown_delay = absl::ZeroDuration();
  absl::Duration shutdown_timeout = absl::Seconds(30);
  std::string otlp_endpoint;
  uint32_t trace_one_in = 1;
  std::string log_level = "info";
  std::string log_format = "auto";
};

enum class ConfigAction { kServe, kHelp, kVersion, kPrintConfig };

struct CommandLine {
  ConfigAction action = ConfigAction::kServe;
  Config config;
};

// `arguments` are the program's without its name; `environment` holds all variables, of which those
// named HANMO_... are read. INVALID_ARGUMENT names the key, where it stands, and the allowed range.
absl::StatusOr<CommandLine> ParseCommandLine(
    const std::vector<std::string>& arguments,
    const std::vector<std::pair<std::string, std::string>>& environment);

// "NAME=WEIGHT" of --tenant-weight; INVALID_ARGUMENT says what it must be.
absl::StatusOr<std::pair<std::string, double>> ParseTenantWeight(absl::string_view text);

// A label that a version has from the start.
struct VersionLabel {
  std::string model;
  std::string label;
  uint32_t version = 0;
};

// "NAME:LABEL=VERSION" of --label; INVALID_ARGUMENT says what it must be.
absl::StatusOr<VersionLabel> ParseVersionLabel(absl::string_view text);

// What --help prints: the options by group with unit, range, default and environment twin.
std::string ConfigHelp();

// The effective configuration as a file that --config reads.
std::string ConfigYaml(const Config& config);

}  // namespace hanmo

#endif  // HANMO_SERVER_CONFIG_H_
