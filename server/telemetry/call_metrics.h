// The gRPC calls of every service by method and code, under the names that dashboards for gRPC
// know.
#ifndef HANMO_SERVER_TELEMETRY_CALL_METRICS_H_
#define HANMO_SERVER_TELEMETRY_CALL_METRICS_H_

#include <array>
#include <atomic>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/telemetry/families.h"
#include "server/telemetry/status_codes.h"

namespace hanmo {

// Thread-safe.
class CallMetrics {
 public:
  // One method's time series, which live as long as the CallMetrics.
  class Method {
   public:
    void Started() { started_->Increment(); }
    void Ended(absl::StatusCode code, absl::Duration time);

   private:
    friend class CallMetrics;
    Method(MetricFamilies* families, absl::string_view service, absl::string_view method,
           absl::string_view type);

    MetricFamilies& families_;
    const prometheus::Labels labels_;
    prometheus::Counter* const started_;
    prometheus::Histogram* const seconds_;
    // Made when a code first occurs.
    std::array<std::atomic<prometheus::Counter*>, kCodes> handled_ = {};
  };

  // `families` outlives it.
  explicit CallMetrics(MetricFamilies* families) : families_(*families) {}

  // Null for a path that was not added.
  Method* Find(absl::string_view path) ABSL_LOCKS_EXCLUDED(mu_);
  // `path` is "/package.Service/Method". Only for methods that exist: each has time series. `type`
  // is "unary", "server_stream", "client_stream" or "bidi_stream".
  Method& Add(absl::string_view path, absl::string_view type) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  MetricFamilies& families_;
  absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::unique_ptr<Method>> methods_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_CALL_METRICS_H_
