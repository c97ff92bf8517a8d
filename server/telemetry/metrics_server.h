// Serves GET /metrics.
#ifndef HANMO_SERVER_TELEMETRY_METRICS_SERVER_H_
#define HANMO_SERVER_TELEMETRY_METRICS_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "prometheus/exposer.h"
#include "server/telemetry/certificate_metrics.h"
#include "server/telemetry/metrics.h"

namespace hanmo {

// Its own thread answers, so that a busy or draining server can still be watched.
class MetricsServer {
 public:
  struct Options {
    std::string address;                     // HOST:PORT; port 0 takes a free one
    bool vllm_names = false;                 // beside ours
    CertificateMetrics::Files certificates;  // whose expiry is told
    // Called from the server's thread.
    std::function<bool()> ready = [] { return false; };
  };

  // UNAVAILABLE when it cannot listen on the address.
  static absl::StatusOr<std::unique_ptr<MetricsServer>> Start(const Options& options,
                                                              const Metrics& metrics);

  // HOST:PORT with the port that was bound.
  const std::string& address() const { return address_; }

 private:
  MetricsServer() = default;

  std::string address_;
  std::vector<std::shared_ptr<prometheus::Collectable>> sources_;  // the exposer holds them weakly
  std::unique_ptr<prometheus::Exposer> exposer_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_METRICS_SERVER_H_
