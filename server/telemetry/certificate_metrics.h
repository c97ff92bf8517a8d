// When the certificates that the server uses expire, read from their files when Prometheus asks.
#ifndef HANMO_SERVER_TELEMETRY_CERTIFICATE_METRICS_H_
#define HANMO_SERVER_TELEMETRY_CERTIFICATE_METRICS_H_

#include <string>
#include <utility>
#include <vector>

#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"

namespace hanmo {

class CertificateMetrics : public prometheus::Collectable {
 public:
  // (option, PEM file) pairs; those without a file are left out.
  using Files = std::vector<std::pair<std::string, std::string>>;

  explicit CertificateMetrics(Files files) : files_(std::move(files)) {}

  // hanmo_certificate_expiry_timestamp_seconds of each file: its certificate that expires first; 0
  // for one that cannot be read, which is as good as expired.
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const Files files_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_CERTIFICATE_METRICS_H_
