// The process's own figures, read when Prometheus asks.
#ifndef HANMO_SERVER_TELEMETRY_PROCESS_METRICS_H_
#define HANMO_SERVER_TELEMETRY_PROCESS_METRICS_H_

#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace hanmo {

// process_open_fds, process_max_fds, process_resident_memory_bytes, process_cpu_seconds_total,
// process_start_time_seconds (when this object was made) and process_threads, named as Prometheus's
// own clients do.
class ProcessMetrics : public prometheus::Collectable {
 public:
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const absl::Time start_ = absl::Now();
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_PROCESS_METRICS_H_
