#include "server/telemetry/certificate_metrics.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <algorithm>
#include <ctime>
#include <limits>
#include <memory>

namespace hanmo {
namespace {

double ExpiryOf(const X509& certificate) {
  std::tm expiry = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(&certificate), &expiry) != 1) return 0;
  return static_cast<double>(timegm(&expiry));
}

// Of the certificate in the file that expires first, in seconds since 1970.
double FirstExpiry(const std::string& file) {
  const std::unique_ptr<BIO, decltype(&BIO_free)> pem(BIO_new_file(file.c_str(), "r"), &BIO_free);
  constexpr double kNone = std::numeric_limits<double>::infinity();
  double first = kNone;
  while (pem != nullptr) {
    const std::unique_ptr<X509, decltype(&X509_free)> certificate(
        PEM_read_bio_X509(pem.get(), nullptr, nullptr, nullptr), &X509_free);
    if (certificate == nullptr) break;
    first = std::min(first, ExpiryOf(*certificate));
  }
  ERR_clear_error();  // the end of the file is one
  return first == kNone ? 0 : first;
}

}  // namespace

std::vector<prometheus::MetricFamily> CertificateMetrics::Collect() const {
  prometheus::MetricFamily family{"hanmo_certificate_expiry_timestamp_seconds",
                                  "When the first certificate of a file expires, since 1970; 0 "
                                  "when it cannot be read",
                                  prometheus::MetricType::Gauge,
                                  {}};
  for (const auto& [option, file] : files_) {
    if (file.empty()) continue;
    prometheus::ClientMetric metric;
    metric.label.push_back({"option", option});
    metric.gauge.value = FirstExpiry(file);
    family.metric.push_back(std::move(metric));
  }
  return {family};
}

}  // namespace hanmo
