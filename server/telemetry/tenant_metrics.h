// Who asks for how much. Clients choose the names of tenants, so only so many have time series of
// their own.
#ifndef HANMO_SERVER_TELEMETRY_TENANT_METRICS_H_
#define HANMO_SERVER_TELEMETRY_TENANT_METRICS_H_

#include <array>
#include <cstddef>
#include <memory>
#include <string>

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
class TenantMetrics {
 public:
  // Tenants by name; those that come later are counted together, as kOthers.
  static constexpr size_t kMaxTenants = 64;
  static constexpr char kOthers[] = "(others)";  // no tenant can be called so

  // `families` outlives it.
  explicit TenantMetrics(MetricFamilies* families);

  // The tenant has time series of its own from now on, as long as there are places. For those that
  // the configuration names, before others come.
  void Add(absl::string_view tenant) ABSL_LOCKS_EXCLUDED(mu_);
  // A request of the tenant ended.
  void RequestDone(absl::string_view tenant, absl::StatusCode code, absl::Duration device_time)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Series {
    std::array<prometheus::Counter*, kCodes> requests;
    prometheus::Counter* device_seconds;
  };

  std::unique_ptr<Series> MakeSeries(absl::string_view tenant);
  // Never null.
  const Series* Find(absl::string_view tenant) ABSL_LOCKS_EXCLUDED(mu_);

  MetricFamilies& families_;
  const std::unique_ptr<Series> others_;
  absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::unique_ptr<Series>> tenants_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_TENANT_METRICS_H_
