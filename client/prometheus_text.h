// Prometheus' text format, version 0.0.4: what /metrics of a server says.
#ifndef HANMO_CLIENT_PROMETHEUS_TEXT_H_
#define HANMO_CLIENT_PROMETHEUS_TEXT_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hanmo {

struct MetricSample {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};

// Samples in their order; comments and time stamps are left out. DATA_LOSS names the line that is
// malformed.
absl::StatusOr<std::vector<MetricSample>> ParsePrometheusText(absl::string_view text);

}  // namespace hanmo

#endif  // HANMO_CLIENT_PROMETHEUS_TEXT_H_
