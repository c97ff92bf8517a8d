#include "client/server_view.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/terminal_text.h"

namespace hanmo {
namespace {

using nlohmann::ordered_json;
using Labels = std::map<std::string, std::string>;

bool Matches(const MetricSample& sample, const std::string& name, const Labels& labels) {
  return sample.name == name && std::all_of(labels.begin(), labels.end(), [&](const auto& label) {
           const auto found = sample.labels.find(label.first);
           return found != sample.labels.end() && found->second == label.second;
         });
}

class Readings {
 public:
  Readings(const Scrape* before, const Scrape& now) : now_(now), compared_(before != nullptr) {
    if (!compared_) return;
    seconds_ = absl::ToDoubleSeconds(now.at - before->at);
    for (const MetricSample& sample : before->samples) {
      before_[{sample.name, sample.labels}] = sample.value;
    }
  }

  bool compared() const { return compared_ && seconds_ > 0; }
  double seconds() const { return seconds_; }

  // Calls `use` with each sample of that name with these labels.
  template <typename Use>
  void Each(const std::string& name, const Labels& labels, Use use) const {
    for (const MetricSample& sample : now_.samples) {
      if (Matches(sample, name, labels)) use(sample);
    }
  }

  double Sum(const std::string& name, const Labels& labels) const {
    double sum = 0;
    Each(name, labels, [&sum](const MetricSample& sample) { sum += sample.value; });
    return sum;
  }

  // By how much a counter grew.
  double Growth(const MetricSample& sample) const {
    const auto found = before_.find({sample.name, sample.labels});
    const double before = found == before_.end() ? 0 : found->second;
    return sample.value >= before ? sample.value - before : sample.value;
  }

  double Growth(const std::string& name, const Labels& labels) const {
    double growth = 0;
    Each(name, labels, [&](const MetricSample& sample) { growth += Growth(sample); });
    return growth;
  }

  Figure Rate(const std::string& name, const Labels& labels) const {
    if (!compared()) return std::nullopt;
    return Growth(name, labels) / seconds_;
  }

  // As Prometheus' histogram_quantile: linear within a bucket; the last bound for what is beyond
  // it.
  Figure Quantile(const std::string& histogram, const Labels& labels, double q) const {
    if (!compared()) return std::nullopt;
    std::map<double, double> buckets;  // counts up to the bound
    Each(histogram + "_bucket", labels, [&](const MetricSample& sample) {
      double bound = 0;
      const auto le = sample.labels.find("le");
      if (le == sample.labels.end() || !absl::SimpleAtod(le->second, &bound)) return;
      buckets[bound] += Growth(sample);
    });
    if (buckets.empty() || buckets.rbegin()->second <= 0) return std::nullopt;
    const double rank = q * buckets.rbegin()->second;
    double low_bound = 0, low_count = 0;
    for (const auto& [bound, count] : buckets) {
      if (count >= rank && count > low_count) {
        if (std::isinf(bound)) return low_bound;
        return low_bound + (bound - low_bound) * (rank - low_count) / (count - low_count);
      }
      low_bound = bound;
      low_count = count;
    }
    return low_bound;
  }

 private:
  const Scrape& now_;
  const bool compared_;
  double seconds_ = 0;
  std::map<std::pair<std::string, Labels>, double> before_;
};

std::string LabelOf(const MetricSample& sample, const std::string& label) {
  const auto found = sample.labels.find(label);
  return found == sample.labels.end() ? "" : found->second;
}

ModelView ViewModel(const Readings& readings, const std::string& name) {
  const Labels model = {{"model", name}};
  ModelView view;
  view.name = name;
  view.waiting = readings.Sum("hanmo_requests_waiting", model);
  view.running = readings.Sum("hanmo_requests_running", model);
  readings.Each("hanmo_model_state", model, [&view](const MetricSample& sample) {
    if (sample.value == 1) view.state = LabelOf(sample, "state");
  });
  double errors = 0;
  readings.Each("hanmo_requests_total", model, [&](const MetricSample& sample) {
    view.task = LabelOf(sample, "task");
    const std::string code = LabelOf(sample, "code");
    if (code != "OK" && code != "CANCELLED") errors += readings.Growth(sample);
  });
  view.requests_per_s = readings.Rate("hanmo_requests_total", model);
  if (readings.compared()) view.errors_per_s = errors / readings.seconds();
  view.latency_p50_s = readings.Quantile("hanmo_request_seconds", model, .5);
  view.latency_p99_s = readings.Quantile("hanmo_request_seconds", model, .99);
  view.queue_p50_s = readings.Quantile("hanmo_queue_seconds", model, .5);
  view.queue_p99_s = readings.Quantile("hanmo_queue_seconds", model, .99);
  const bool writes = view.task == "text";
  if (writes) {
    view.tokens_per_s = readings.Rate("hanmo_completion_tokens_total", model);
    view.kv_pages_used = readings.Sum("hanmo_kv_pages_used", model);
    view.kv_pages = readings.Sum("hanmo_kv_pages", model);
  } else {
    view.steps_per_s = readings.Rate("hanmo_steps_total", model);
  }
  const Labels steps = {{"model", name}, {"step", writes ? "text" : "denoise"}};
  const double batches = readings.Growth("hanmo_batch_size_count", steps);
  if (readings.compared() && batches > 0) {
    view.batch_mean = readings.Growth("hanmo_batch_size_sum", steps) / batches;
  }
  return view;
}

WorkerView ViewWorker(const Readings& readings, const std::string& name) {
  const Labels worker = {{"worker", name}};
  return {.name = name,
          .up = readings.Sum("hanmo_worker_up", worker) == 1,
          .restarts = readings.Sum("hanmo_worker_restarts_total", worker),
          .memory_used_bytes = readings.Sum("hanmo_device_memory_used_bytes", worker),
          .memory_bytes = readings.Sum("hanmo_device_memory_bytes", worker),
          .stalled = readings.Rate("hanmo_device_idle_seconds_total", worker)};
}

Figure Busy(const Readings& readings) {
  const double workers = readings.Sum("hanmo_worker_up", {});
  if (!readings.compared() || workers == 0) return std::nullopt;
  double busy = 0;
  for (const char* step : {"text_encode", "step", "vae_decode"}) {
    busy += readings.Growth(absl::StrCat("hanmo_", step, "_seconds_sum"), {});
  }
  // A step counts when it ends, so that a long one can count for more than the time between.
  return std::min(1.0, busy / readings.seconds() / workers);
}

// Texts.

std::string NumberText(Figure figure) {
  if (!figure) return "-";
  if (*figure >= 100 || *figure == std::floor(*figure)) return absl::StrFormat("%.0f", *figure);
  return *figure >= 10 ? absl::StrFormat("%.1f", *figure) : absl::StrFormat("%.2f", *figure);
}

std::string TimeText(Figure seconds) {
  if (!seconds) return "-";
  return *seconds < 1 ? absl::StrFormat("%.0f ms", 1e3 * *seconds)
                      : absl::StrFormat("%.2f s", *seconds);
}

std::string ShareText(Figure share) {
  return share ? absl::StrFormat("%.0f %%", 100 * *share) : "-";
}

std::string MemoryText(const WorkerView& worker) {
  if (worker.memory_bytes == 0) return "-";
  constexpr double kGiB = 1 << 30;
  return absl::StrFormat("%.1f of %.1f GiB", worker.memory_used_bytes / kGiB,
                         worker.memory_bytes / kGiB);
}

using Row = std::vector<std::string>;

// Characters, which for the names of models are as wide as each other.
size_t Width(absl::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
}

// Two columns of words on the left, then numbers.
std::string Table(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows.front().size());
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string text;
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - Width(row[i]), ' ');
      absl::StrAppend(&text, i == 0 ? "" : "  ", i < 2 ? row[i] : space, i < 2 ? space : row[i]);
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

// One line, whatever the server calls it.
std::string NameText(const std::string& name) {
  std::string text = SafeForTerminal(name);
  std::replace_if(text.begin(), text.end(), [](char c) { return c == '\n' || c == '\t'; }, ' ');
  return text;
}

}  // namespace

ServerView ViewServer(const Scrape* before, const Scrape& now) {
  const Readings readings(before, now);
  ServerView view;
  if (before != nullptr) view.span = now.at - before->at;
  view.busy = Busy(readings);
  view.overloaded = readings.Sum("hanmo_overloaded", {}) == 1;
  readings.Each("hanmo_build_info", {},
                [&view](const MetricSample& sample) { view.version = LabelOf(sample, "version"); });
  readings.Each("hanmo_requests_waiting", {}, [&](const MetricSample& sample) {
    view.models.push_back(ViewModel(readings, LabelOf(sample, "model")));
  });
  readings.Each("hanmo_worker_up", {}, [&](const MetricSample& sample) {
    view.workers.push_back(ViewWorker(readings, LabelOf(sample, "worker")));
  });
  return view;
}

std::string ViewText(const ServerView& view) {
  std::string text = absl::StrCat("hanmo ", NameText(view.version));
  if (view.busy) absl::StrAppend(&text, ", devices ", ShareText(view.busy), " busy");
  if (view.overloaded) absl::StrAppend(&text, ", OVERLOADED: the queue is full");
  if (view.span > absl::ZeroDuration()) {
    absl::StrAppendFormat(&text, ", over %.1f s", absl::ToDoubleSeconds(view.span));
  }
  absl::StrAppend(&text, "\n\n");
  std::vector<Row> models = {{"MODEL", "STATE", "WAITING", "RUNNING", "REQUESTS/S", "ERRORS/S",
                              "P50", "P99", "QUEUE P50", "QUEUE P99", "OUTPUT", "BATCH",
                              "KV PAGES"}};
  for (const ModelView& model : view.models) {
    const std::string output =
        model.tokens_per_s  ? absl::StrCat(NumberText(model.tokens_per_s), " tokens/s")
        : model.steps_per_s ? absl::StrCat(NumberText(model.steps_per_s), " steps/s")
                            : "-";
    const std::string pages =
        model.kv_pages && *model.kv_pages > 0
            ? absl::StrCat(NumberText(model.kv_pages_used), "/", NumberText(model.kv_pages))
            : "-";
    models.push_back({NameText(model.name), NameText(model.state), NumberText(model.waiting),
                      NumberText(model.running), NumberText(model.requests_per_s),
                      NumberText(model.errors_per_s), TimeText(model.latency_p50_s),
                      TimeText(model.latency_p99_s), TimeText(model.queue_p50_s),
                      TimeText(model.queue_p99_s), output, NumberText(model.batch_mean), pages});
  }
  std::vector<Row> workers = {{"WORKER", "STATE", "RESTARTS", "MEMORY", "STALLED"}};
  for (const WorkerView& worker : view.workers) {
    workers.push_back({NameText(worker.name), worker.up ? "up" : "down",
                       NumberText(worker.restarts), MemoryText(worker), ShareText(worker.stalled)});
  }
  return absl::StrCat(text, Table(models), "\n", Table(workers));
}

ordered_json ViewJson(const ServerView& view) {
  // Figures without a value, and what is no number for JSON, are null.
  const auto number = [](Figure figure) -> ordered_json {
    return figure && std::isfinite(*figure) ? ordered_json(*figure) : ordered_json(nullptr);
  };
  ordered_json json = {
      {"version", view.version},         {"seconds", absl::ToDoubleSeconds(view.span)},
      {"busy", number(view.busy)},       {"overloaded", view.overloaded},
      {"models", ordered_json::array()}, {"workers", ordered_json::array()}};
  for (const ModelView& model : view.models) {
    ordered_json one = {{"name", model.name},
                        {"task", model.task},
                        {"state", model.state},
                        {"waiting", number(model.waiting)},
                        {"running", number(model.running)},
                        {"requests_per_s", number(model.requests_per_s)},
                        {"errors_per_s", number(model.errors_per_s)},
                        {"latency_p50_s", number(model.latency_p50_s)},
                        {"latency_p99_s", number(model.latency_p99_s)},
                        {"queue_p50_s", number(model.queue_p50_s)},
                        {"queue_p99_s", number(model.queue_p99_s)},
                        {"batch_mean", number(model.batch_mean)}};
    if (model.task == "text") {
      one["tokens_per_s"] = number(model.tokens_per_s);
      one["kv_pages_used"] = number(model.kv_pages_used);
      one["kv_pages"] = number(model.kv_pages);
    } else {
      one["steps_per_s"] = number(model.steps_per_s);
    }
    json["models"].push_back(std::move(one));
  }
  for (const WorkerView& worker : view.workers) {
    json["workers"].push_back({{"name", worker.name},
                               {"up", worker.up},
                               {"restarts", number(worker.restarts)},
                               {"memory_used_bytes", number(worker.memory_used_bytes)},
                               {"memory_bytes", number(worker.memory_bytes)},
                               {"stalled", number(worker.stalled)}});
  }
  return json;
}

}  // namespace hanmo
