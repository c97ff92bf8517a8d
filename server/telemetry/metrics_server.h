// Serves GET /metrics.
#ifndef HANMO_SERVER_TELEMETRY_METRICS_SERVER_H_
#define HANMO_SERVER_TELEMETRY_METRICS_SERVER_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "prometheus/exposer.h"
#include "server/telemetry/metrics.h"
#include "server/telemetry/process_metrics.h"

namespace hanmo {

// Its own thread answers, so that a busy or draining server can still be watched.
class MetricsServer {
 public:
  // `address` is HOST:PORT; port 0 takes a free one. UNAVAILABLE when it cannot be listened on.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const std::string& address,
                                                              const Metrics& metrics);

  // HOST:PORT with the port that was bound.
  const std::string& address() const { return address_; }

 private:
  MetricsServer() = default;

  std::string address_;
  std::shared_ptr<ProcessMetrics> process_ = std::make_shared<ProcessMetrics>();
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_METRICS_SERVER_H_
