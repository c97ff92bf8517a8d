#include "server/config_options.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace hanmo {
namespace {

constexpr double kHour = 3600;
constexpr double kGiB = 1024.0 * 1024 * 1024;

std::vector<ConfigOption> MakeOptions() {
  constexpr absl::string_view kNetwork = "Network";
  constexpr absl::string_view kTls = "TLS of the gRPC port";
  constexpr absl::string_view kModels = "Models";
  constexpr absl::string_view kWorkers = "Workers";
  constexpr absl::string_view kBatching = "Queue and batches";
  constexpr absl::string_view kLife = "Life cycle and logs";
  return {
      // The default stays on loopback: distributions ship gRPC releases with known remote holes,
      // so who faces a network says so.
      {kNetwork, "listen", "HOST:PORT", &Config::listen,
       "address of the gRPC port; port 0 takes a free one; unix:PATH works too"},
      {kNetwork, "metrics-listen", "HOST:PORT", &Config::metrics_listen,
       "address of GET /metrics; empty serves none and counts nothing for it"},
      {kNetwork, "vllm-metrics", "BOOL", &Config::vllm_metrics,
       "the figures of texts also under the names of vLLM, for dashboards and gateways made for "
       "it"},
      {kNetwork, "health-listen", "HOST:PORT", &Config::health_listen,
       "one more port for health checks alone, without TLS, as kubelets need; empty opens none"},
      {kNetwork, "admin-listen", "HOST:PORT", &Config::admin_listen,
       "port of hanmo.v1.Admin, which loads and unloads models and drains; empty opens none; with "
       "the certificates of the gRPC port"},
      {kNetwork, "max-message-bytes", "BYTES", &Config::max_message_bytes,
       "largest request; larger ones end with RESOURCE_EXHAUSTED", 64 << 10, 1 << 30},
      {kNetwork, "max-concurrent-streams", "N", &Config::max_concurrent_streams,
       "calls at once on one connection", 1, 1 << 20},
      {kNetwork, "grpc-memory", "BYTES", &Config::grpc_memory,
       "memory that gRPC may hold for its connections", 16 << 20, 64 * kGiB},
      {kNetwork, "keepalive-time", "TIME", &Config::keepalive_time,
       "ping an idle connection this often", 1, 24 * kHour},
      {kNetwork, "keepalive-timeout", "TIME", &Config::keepalive_timeout,
       "close a connection whose ping is not answered for this long", 1, kHour},
      {kNetwork, "max-connection-age", "TIME", &Config::max_connection_age,
       "ask clients to reconnect after this long, which rebalances them; 0 never", 0, 24 * kHour},
      {kNetwork, "max-connection-age-grace", "TIME", &Config::max_connection_age_grace,
       "time for the calls of an aged connection to finish", 1, 24 * kHour},
      {kNetwork, "reflection", "BOOL", &Config::reflection,
       "serve gRPC reflection, for grpcurl and the like"},

      {kTls, "tls-cert", "FILE", &Config::tls_cert,
       "certificate chain (PEM), read again when it changes; empty serves plaintext"},
      {kTls, "tls-key", "FILE", &Config::tls_key, "private key of tls-cert (PEM)"},
      {kTls, "tls-client-ca", "FILE", &Config::tls_client_ca,
       "demand client certificates signed by one of these (PEM)"},

      {kModels, "model-repository", "DIR", &Config::model_repository,
       "folder whose sub-folders are models, or one model's folder; required"},
      {kModels, "load", "NAME[:VERSION]", &Config::load,
       "model to load at the start, its newest version or this one; * is all of them; may be "
       "repeated"},
      {kModels, "label", "NAME:LABEL=VERSION", &Config::label,
       "label that a version has from the start, which is loaded, too; requests that name no "
       "version get the one labelled stable; may be repeated"},
      {kModels, "model-memory", "BYTES", &Config::model_memory,
       "weights on one worker at most; beyond it the model that nobody has asked for the longest "
       "is loaded again by its next request; 0 sets no limit",
       0, 1024 * kGiB},

      // One worker per device: it holds the weights once and uses all cores in each step; two
      // workers of half the threads double the memory.
      {kWorkers, "workers", "N", &Config::workers, "worker processes per device", 1, 64},
      {kWorkers, "worker-threads", "N", &Config::worker_threads,
       "compute threads of each worker; 0 shares the cores among them", 0, 1024},
      {kWorkers, "devices", "LIST", &Config::devices,
       "auto, cpu, cuda:0 and so on; auto takes every GPU, else the CPU"},
      {kWorkers,
       "dtype",
       "TYPE",
       &Config::dtype,
       "number format of weights and computing",
       0,
       0,
       {"auto", "float32", "float16", "bfloat16"}},
      {kWorkers,
       "deterministic",
       "WHEN",
       &Config::deterministic,
       "a request's output never depends on what else runs; auto: on CPUs, where that costs "
       "nothing, "
       "but not on GPUs, where rows would run one by one",
       0,
       0,
       {"auto", "true", "false"}},
      {kWorkers, "kv-memory", "BYTES", &Config::kv_memory,
       "key/value pages of each text model on each worker; 0 lets the worker choose", 0,
       1024 * kGiB},
      {kWorkers, "expert-memory", "BYTES", &Config::expert_memory,
       "experts (UNets by timestep) of each picture model in the memory of each worker, at least "
       "one; the next one is read while one is in use; 0 keeps all of them",
       0, 1024 * kGiB},
      {kWorkers, "max-context", "TOKENS", &Config::max_context,
       "prompt and text together at most, for text models that know more; their key/value pages "
       "hold at least one context; 0 takes the models' own",
       0, 1 << 24},
      {kWorkers, "worker-program", "FILE", &Config::worker_program,
       "program of the workers; empty takes hanmo-worker beside this program"},
      {kWorkers, "worker-arg", "ARG", &Config::worker_arg,
       "passed on to the worker program; may be repeated"},
      {kWorkers, "worker", "ADDRESS", &Config::worker,
       "attach to a running worker (unix:PATH, tls:HOST:PORT, or HOST:PORT on loopback) and start "
       "none; may be repeated"},
      {kWorkers, "worker-tls-ca", "FILE", &Config::worker_tls_ca,
       "certificates that a tls: worker's must come from (PEM); empty takes the system's"},
      {kWorkers, "worker-tls-cert", "FILE", &Config::worker_tls_cert,
       "certificate that shows this server to a tls: worker (PEM)"},
      {kWorkers, "worker-tls-key", "FILE", &Config::worker_tls_key,
       "private key of worker-tls-cert (PEM)"},

      {kBatching,
       "policy",
       "NAME",
       &Config::policy,
       "who goes first: hanmo (short requests as far as long ones can bear it, deadlines, fair "
       "shares), fcfs (in order of arrival), static (likewise, in batches of equal pictures, or of "
       "texts, that are closed until the last has ended)",
       0,
       0,
       {"hanmo", "fcfs", "static"}},
      {kBatching, "stretch", "N", &Config::stretch,
       "a request is due after so many times the time that it takes alone; larger favours short "
       "requests and the mean, 1 is the order of arrival",
       1, 100},
      {kBatching, "text-share", "PERCENT", &Config::text_share,
       "of a worker's time for texts while pictures wait, too", 1, 99},
      {kBatching, "slice", "TIME", &Config::slice,
       "a picture step that takes longer on a CPU is cut into pieces of about this time at most, "
       "between which texts, cancels and deadlines have their turn; only with policy hanmo",
       0.001, kHour},
      {kBatching, "tenant-weight", "NAME=WEIGHT", &Config::tenant_weight,
       "share of a tenant against the others, 0.001 to 1000; 1 for who is not named; may be "
       "repeated"},
      {kBatching, "max-queued-requests", "N", &Config::max_queued_requests,
       "requests waiting at most; one more ends with RESOURCE_EXHAUSTED", 1, 1 << 20},
      {kBatching, "max-queued-work", "TIME", &Config::max_queued_work,
       "predicted device time of the waiting requests at most, for each worker; one more ends with "
       "RESOURCE_EXHAUSTED",
       0.001, 24 * kHour},
      {kBatching, "max-running-samples", "N", &Config::max_running_samples,
       "texts and pictures begun on one worker at most", 1, 4096},
      {kBatching, "max-picture-batch", "N", &Config::max_picture_batch,
       "pictures in one denoising step at most", 1, 256},
      {kBatching, "prefill-chunk-tokens", "N", &Config::prefill_chunk_tokens,
       "prompt tokens in one text step at most", 16, 1 << 20},
      {kBatching, "prefix-cache-bytes", "BYTES", &Config::prefix_cache_bytes,
       "key/value pages of each text model on each worker kept for texts of the same tenant that "
       "begin alike; 0 shares none",
       0, 1024 * kGiB},
      {kBatching, "preview-bytes-per-second", "BYTES", &Config::preview_bytes_per_second,
       "previews that one stream may take; those beyond are left out", 0, kGiB},
      {kBatching, "speculative-tokens", "N", &Config::speculative_tokens,
       "tokens of a text that repeats itself guessed and checked in one step at most; changes no "
       "output; 0 guesses none",
       0, 64},
      {kBatching, "steps-in-flight", "N", &Config::steps_in_flight,
       "steps sent to a worker ahead of its results", 1, 16},
      {kBatching, "save-interval-steps", "N", &Config::save_interval_steps,
       "denoising steps between two save points of a picture, which are redone when a worker dies",
       1, 1000},
      {kBatching, "max-parked", "TIME", &Config::max_parked,
       "a text that its reader stalls for this long gives its memory back until it reads on", 0,
       kHour},
      {kBatching, "media-threads", "N", &Config::media_threads, "threads that encode pictures", 1,
       64},

      {kLife, "shutdown-delay", "TIME", &Config::shutdown_delay,
       "after TERM, report NOT_SERVING this long before refusing requests", 0, kHour},
      {kLife, "shutdown-timeout", "TIME", &Config::shutdown_timeout,
       "then let accepted requests finish for this long", 0, 24 * kHour},
      {kLife, "otlp-endpoint", "URL", &Config::otlp_endpoint,
       "collector that takes OpenTelemetry traces over gRPC, as in http://127.0.0.1:4317; empty "
       "traces nothing"},
      {kLife, "trace-one-in", "N", &Config::trace_one_in,
       "requests whose caller leaves it to the server are traced once in so many", 1, 1000000},
      {kLife,
       "log-level",
       "LEVEL",
       &Config::log_level,
       "least severe lines to log",
       0,
       0,
       {"debug", "info", "warning", "error"}},
      {kLife,
       "log-format",
       "FORMAT",
       &Config::log_format,
       "log lines on stderr; auto: text on a terminal, else json",
       0,
       0,
       {"auto", "text", "json"}},
  };
}

absl::Status OutOfRange(const ConfigOption& option, absl::string_view text) {
  return absl::InvalidArgumentError(
      absl::StrCat("must be ", ConfigRange(option), ", got \"", text, "\""));
}

std::string FormatBytes(uint64_t bytes) {
  static constexpr std::array<std::pair<const char*, uint64_t>, 3> kUnits = {
      {{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}};
  for (const auto& [unit, size] : kUnits) {
    if (bytes >= size && bytes % size == 0) return absl::StrCat(bytes / size, unit);
  }
  return absl::StrCat(bytes);
}

bool ParseBytes(absl::string_view text, uint64_t* bytes) {
  uint64_t unit = 1;
  if (absl::ConsumeSuffix(&text, "KiB")) {
    unit = 1 << 10;
  } else if (absl::ConsumeSuffix(&text, "MiB")) {
    unit = 1 << 20;
  } else if (absl::ConsumeSuffix(&text, "GiB")) {
    unit = 1 << 30;
  }
  uint64_t count = 0;
  if (!absl::SimpleAtoi(text, &count) || count > UINT64_MAX / unit) return false;
  *bytes = count * unit;
  return true;
}

bool InRange(const ConfigOption& option, double value) {
  return value >= option.min && value <= option.max;
}

// Writes one parsed value into the field that `option` names.
struct ValueSetter {
  const ConfigOption& option;
  absl::string_view text;
  bool append;
  Config* config;

  absl::Status operator()(std::string Config::* field) const {
    if (!option.choices.empty() &&
        std::find(option.choices.begin(), option.choices.end(), text) == option.choices.end()) {
      return OutOfRange(option, text);
    }
    config->*field = std::string(text);
    return absl::OkStatus();
  }
  absl::Status operator()(bool Config::* field) const {
    bool value = false;
    if (!absl::SimpleAtob(text, &value)) return OutOfRange(option, text);
    config->*field = value;
    return absl::OkStatus();
  }
  absl::Status operator()(uint32_t Config::* field) const {
    uint32_t value = 0;
    if (!absl::SimpleAtoi(text, &value) || !InRange(option, value)) return OutOfRange(option, text);
    config->*field = value;
    return absl::OkStatus();
  }
  absl::Status operator()(uint64_t Config::* field) const {
    uint64_t value = 0;
    if (!ParseBytes(text, &value) || !InRange(option, static_cast<double>(value))) {
      return OutOfRange(option, text);
    }
    config->*field = value;
    return absl::OkStatus();
  }
  absl::Status operator()(absl::Duration Config::* field) const {
    absl::Duration value;
    if (!absl::ParseDuration(text, &value) || !InRange(option, absl::ToDoubleSeconds(value))) {
      return OutOfRange(option, text);
    }
    config->*field = value;
    return absl::OkStatus();
  }
  absl::Status operator()(std::vector<std::string> Config::* field) const {
    if (append) {
      (config->*field).emplace_back(text);
    } else {
      config->*field = absl::StrSplit(text, ',', absl::SkipEmpty());
    }
    return absl::OkStatus();
  }
};

struct ValuePrinter {
  const Config& config;

  std::string operator()(std::string Config::* field) const { return config.*field; }
  std::string operator()(bool Config::* field) const { return config.*field ? "true" : "false"; }
  std::string operator()(uint32_t Config::* field) const { return absl::StrCat(config.*field); }
  std::string operator()(uint64_t Config::* field) const { return FormatBytes(config.*field); }
  std::string operator()(absl::Duration Config::* field) const {
    return absl::FormatDuration(config.*field);
  }
  std::string operator()(std::vector<std::string> Config::* field) const {
    return absl::StrJoin(config.*field, ",");
  }
};

}  // namespace

absl::Span<const ConfigOption> ConfigOptions() {
  static const auto& options = *new std::vector<ConfigOption>(MakeOptions());
  return options;
}

const ConfigOption* FindConfigOption(absl::string_view name) {
  for (const ConfigOption& option : ConfigOptions()) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

std::string EnvironmentName(const ConfigOption& option) {
  return absl::StrCat("HANMO_",
                      absl::AsciiStrToUpper(absl::StrReplaceAll(option.name, {{"-", "_"}})));
}

absl::Status SetConfigValue(const ConfigOption& option, absl::string_view text, bool append,
                            Config* config) {
  return std::visit(ValueSetter{option, text, append, config}, option.field);
}

std::string ConfigValue(const ConfigOption& option, const Config& config) {
  return std::visit(ValuePrinter{config}, option.field);
}

std::string ConfigRange(const ConfigOption& option) {
  if (!option.choices.empty()) return absl::StrCat("one of ", absl::StrJoin(option.choices, ", "));
  if (std::holds_alternative<bool Config::*>(option.field)) return "true or false";
  if (std::holds_alternative<uint64_t Config::*>(option.field)) {
    return absl::StrCat("bytes (KiB, MiB, GiB) from ",
                        FormatBytes(static_cast<uint64_t>(option.min)), " to ",
                        FormatBytes(static_cast<uint64_t>(option.max)));
  }
  if (std::holds_alternative<absl::Duration Config::*>(option.field)) {
    return absl::StrCat("a time (ms, s, m, h) from ",
                        absl::FormatDuration(absl::Seconds(option.min)), " to ",
                        absl::FormatDuration(absl::Seconds(option.max)));
  }
  if (option.max > 0)
    return absl::StrCat("a number from ", static_cast<uint64_t>(option.min), " to ",
                        static_cast<uint64_t>(option.max));
  return "";
}

}  // namespace hanmo
