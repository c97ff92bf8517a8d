// What a server is doing, from two readings of its metrics.
#ifndef HANMO_CLIENT_SERVER_VIEW_H_
#define HANMO_CLIENT_SERVER_VIEW_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/prometheus_text.h"
#include "nlohmann/json.hpp"

namespace hanmo {

struct Scrape {
  absl::Time at;
  std::vector<MetricSample> samples;
};

// Figures without a value: nothing happened between the readings, or there is one only.
using Figure = std::optional<double>;

struct ModelView {
  std::string name;
  std::string task;   // "text" or "picture"
  std::string state;  // "ready", "loading" ...
  double waiting = 0;
  double running = 0;
  Figure requests_per_s;
  Figure errors_per_s;  // neither OK nor CANCELLED
  Figure latency_p50_s;
  Figure latency_p99_s;
  Figure queue_p50_s;
  Figure queue_p99_s;
  Figure tokens_per_s;  // texts
  Figure steps_per_s;   // pictures
  Figure batch_mean;    // rows of a text or denoising step
  Figure kv_pages_used;
  Figure kv_pages;
};

struct WorkerView {
  std::string name;
  bool up = false;
  double restarts = 0;
  double memory_used_bytes = 0;
  double memory_bytes = 0;
  Figure stalled;  // share of the time in which the device stood still though there was work
};

struct ServerView {
  std::string version;
  absl::Duration span;  // between the readings; zero when there is one only
  Figure busy;          // share of the time in which the devices worked
  bool overloaded = false;
  std::vector<ModelView> models;
  std::vector<WorkerView> workers;
};

// `before` is null for the first reading. A counter that is smaller than before began anew.
ServerView ViewServer(const Scrape* before, const Scrape& now);

// For people, with a line feed at each line's end; safe for terminals.
std::string ViewText(const ServerView& view);
nlohmann::ordered_json ViewJson(const ServerView& view);

}  // namespace hanmo

#endif  // HANMO_CLIENT_SERVER_VIEW_H_
