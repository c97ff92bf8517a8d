#include "server/telemetry/tenant_metrics.h"

#include <set>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

class TenantMetricsTest : public ::testing::Test {
 protected:
  std::string Text() const { return prometheus::TextSerializer().Serialize(registry_.Collect()); }

  prometheus::Registry registry_;
  MetricFamilies families_{&registry_};
  TenantMetrics tenants_{&families_};
};

TEST_F(TenantMetricsTest, RequestsAndDeviceTimeGoToTheirTenant) {
  tenants_.RequestDone("painters", absl::StatusCode::kOk, absl::Seconds(2));
  tenants_.RequestDone("painters", absl::StatusCode::kCancelled, absl::Seconds(1));
  tenants_.RequestDone("", absl::StatusCode::kOk, absl::ZeroDuration());
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("hanmo_tenant_requests_total{code=\"OK\",tenant=\"painters\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_tenant_requests_total{code=\"OK\",tenant=\"\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_tenant_device_seconds_total{tenant=\"painters\"} 3"));
}

TEST_F(TenantMetricsTest, TenThousandNamesMakeNoMoreSeriesThanTheCap) {
  tenants_.Add("configured");
  for (int i = 0; i < 10'000; ++i) {
    tenants_.RequestDone(absl::StrCat("t", i), absl::StatusCode::kOk, absl::Seconds(1));
  }
  tenants_.RequestDone("configured", absl::StatusCode::kOk, absl::Seconds(7));
  size_t named = 0;
  for (const auto& family : registry_.Collect()) {
    if (family.name == "hanmo_tenant_device_seconds_total") named = family.metric.size();
  }
  EXPECT_EQ(named, TenantMetrics::kMaxTenants + 1);
  const std::string text = Text();
  EXPECT_THAT(text, HasSubstr("hanmo_tenant_device_seconds_total{tenant=\"configured\"} 7"));
  EXPECT_THAT(
      text, HasSubstr(absl::StrCat("hanmo_tenant_requests_total{code=\"OK\",tenant=\"(others)\"} ",
                                   10'000 - (TenantMetrics::kMaxTenants - 1))));
}

}  // namespace
}  // namespace hanmo
