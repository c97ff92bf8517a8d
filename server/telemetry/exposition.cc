#include "server/telemetry/exposition.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "prometheus/client_metric.h"

namespace hanmo {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Families = std::vector<MetricFamily>;

struct Alias {
  absl::string_view ours;
  const char* vllm;
};

constexpr Alias kAliases[] = {
    {"hanmo_requests_waiting", "vllm:num_requests_waiting"},
    {"hanmo_requests_running", "vllm:num_requests_running"},
    {"hanmo_preempted_total", "vllm:num_preemptions_total"},
    {"hanmo_prompt_tokens_total", "vllm:prompt_tokens_total"},
    {"hanmo_completion_tokens_total", "vllm:generation_tokens_total"},
    {"hanmo_texts_total", "vllm:request_success_total"},
    {"hanmo_time_to_first_token_seconds", "vllm:time_to_first_token_seconds"},
    {"hanmo_inter_token_seconds", "vllm:inter_token_latency_seconds"},
    {"hanmo_time_per_output_token_seconds", "vllm:request_time_per_output_token_seconds"},
    {"hanmo_request_seconds", "vllm:e2e_request_latency_seconds"},
    {"hanmo_queue_seconds", "vllm:request_queue_time_seconds"},
    {"hanmo_prefill_seconds", "vllm:request_prefill_time_seconds"},
    {"hanmo_decode_seconds", "vllm:request_decode_time_seconds"},
    {"hanmo_text_prompt_tokens", "vllm:request_prompt_tokens"},
    {"hanmo_text_completion_tokens", "vllm:request_generation_tokens"},
};

const MetricFamily* Find(const Families& families, absl::string_view name) {
  const auto found = std::find_if(families.begin(), families.end(),
                                  [&](const MetricFamily& family) { return family.name == name; });
  return found == families.end() ? nullptr : &*found;
}

std::string ModelOf(const ClientMetric& metric) {
  for (const auto& label : metric.label) {
    if (label.name == "model") return label.value;
  }
  return "";
}

std::map<std::string, double> SumByModel(const Families& families, absl::string_view name) {
  std::map<std::string, double> sums;
  if (const MetricFamily* family = Find(families, name); family != nullptr) {
    for (const ClientMetric& metric : family->metric) sums[ModelOf(metric)] += metric.gauge.value;
  }
  return sums;
}

double Sum(const std::map<std::string, double>& by_model) {
  double sum = 0;
  for (const auto& [model, value] : by_model) sum += value;
  return sum;
}

double Ratio(double part, double whole) { return whole > 0 ? part / whole : 0; }

MetricFamily Gauge(const char* name, const char* help, double value) {
  ClientMetric metric;
  metric.gauge.value = value;
  return {name, help, MetricType::Gauge, {metric}};
}

void RenameLabels(ClientMetric* metric) {
  for (auto& label : metric->label) {
    if (label.name == "model") label.name = "model_name";
    if (label.name == "finish_reason") label.name = "finished_reason";
  }
}

MetricFamily VllmCacheUsage(const std::map<std::string, double>& used,
                            const std::map<std::string, double>& pages) {
  MetricFamily usage{"vllm:kv_cache_usage_perc",
                     "hanmo_kv_pages_used of hanmo_kv_pages, 0 to 1",
                     MetricType::Gauge,
                     {}};
  for (const auto& [model, all] : pages) {
    ClientMetric metric;
    metric.label.push_back({"model_name", model});
    metric.gauge.value = Ratio(used.contains(model) ? used.at(model) : 0, all);
    usage.metric.push_back(std::move(metric));
  }
  return usage;
}

// Slots of a page in every worker (workers/kv_pages.h).
constexpr char kPageTokens[] = "16";

MetricFamily VllmCacheConfig(const std::map<std::string, double>& pages) {
  MetricFamily config{"vllm:cache_config_info",
                      "1; block_size: tokens of a page, num_gpu_blocks: hanmo_kv_pages",
                      MetricType::Gauge,
                      {}};
  for (const auto& [model, all] : pages) {
    ClientMetric metric;
    metric.label = {{"model_name", model},
                    {"block_size", kPageTokens},
                    {"num_gpu_blocks", absl::StrCat(static_cast<uint64_t>(all))}};
    metric.gauge.value = 1;
    config.metric.push_back(std::move(metric));
  }
  return config;
}

void AppendVllmNames(Families* families) {
  const size_t count = families->size();
  for (const Alias& alias : kAliases) {
    for (size_t i = 0; i < count; ++i) {
      if ((*families)[i].name != alias.ours) continue;
      MetricFamily copy = (*families)[i];
      copy.help = copy.name;
      copy.name = alias.vllm;
      for (ClientMetric& metric : copy.metric) RenameLabels(&metric);
      families->push_back(std::move(copy));
    }
  }
}

}  // namespace

Families Exposition::Collect() const {
  Families families = registry_->Collect();
  const auto used = SumByModel(families, "hanmo_kv_pages_used");
  const auto pages = SumByModel(families, "hanmo_kv_pages");
  Families added = {
      Gauge("hanmo_queued_requests", "Requests before their first step, of all models",
            Sum(SumByModel(families, "hanmo_requests_waiting"))),
      Gauge("hanmo_active_requests", "Requests between first step and end, of all models",
            Sum(SumByModel(families, "hanmo_requests_running"))),
      Gauge("hanmo_kv_cache_utilization_ratio", "Key/value pages in use, of all, 0 to 1",
            Ratio(Sum(used), Sum(pages))),
      Gauge("hanmo_ready", "1 while the health service \"readiness\" is SERVING, else 0",
            ready_() ? 1 : 0)};
  if (vllm_names_) {
    AppendVllmNames(&families);
    added.push_back(VllmCacheUsage(used, pages));
    added.push_back(VllmCacheConfig(pages));
  }
  families.insert(families.end(), added.begin(), added.end());
  return families;
}

}  // namespace hanmo
