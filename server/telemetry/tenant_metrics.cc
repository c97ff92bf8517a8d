#include "server/telemetry/tenant_metrics.h"

namespace hanmo {

TenantMetrics::TenantMetrics(MetricFamilies* families)
    : families_(*families), others_(MakeSeries(kOthers)) {}

std::unique_ptr<TenantMetrics::Series> TenantMetrics::MakeSeries(absl::string_view tenant) {
  auto series = std::make_unique<Series>();
  const std::string name(tenant);
  for (size_t code = 0; code < kCodes; ++code) {
    series->requests[code] =
        &families_.tenant_requests.Add({{"tenant", name}, {"code", CodeName(code)}});
  }
  series->device_seconds = &families_.tenant_device_seconds.Add({{"tenant", name}});
  return series;
}

void TenantMetrics::Add(absl::string_view tenant) { Find(tenant); }

const TenantMetrics::Series* TenantMetrics::Find(absl::string_view tenant) {
  {
    absl::ReaderMutexLock lock(&mu_);
    const auto found = tenants_.find(tenant);
    if (found != tenants_.end()) return found->second.get();
    if (tenants_.size() >= kMaxTenants) return others_.get();
  }
  absl::MutexLock lock(&mu_);
  const auto found = tenants_.find(tenant);
  if (found != tenants_.end()) return found->second.get();
  if (tenants_.size() >= kMaxTenants) return others_.get();
  return tenants_.emplace(tenant, MakeSeries(tenant)).first->second.get();
}

void TenantMetrics::RequestDone(absl::string_view tenant, absl::StatusCode code,
                                absl::Duration device_time) {
  const Series* series = Find(tenant);
  series->requests[CodeIndex(code)]->Increment();
  const double seconds = absl::ToDoubleSeconds(device_time);
  if (seconds > 0) series->device_seconds->Increment(seconds);
}

}  // namespace hanmo
