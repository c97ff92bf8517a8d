#include "server/telemetry/call_metrics.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class CallMetricsTest : public ::testing::Test {
 protected:
  std::string Text() const { return prometheus::TextSerializer().Serialize(registry_.Collect()); }

  prometheus::Registry registry_;
  MetricFamilies families_{&registry_};
  CallMetrics calls_{&families_};
};

TEST_F(CallMetricsTest, CallsAreCountedByServiceMethodAndCode) {
  const char path[] = "/hanmo.v1.Generation/Generate";
  EXPECT_EQ(calls_.Find(path), nullptr);
  CallMetrics::Method& generate = calls_.Add(path, "unary");
  EXPECT_EQ(calls_.Find(path), &generate);
  EXPECT_EQ(&calls_.Add(path, "unary"), &generate);
  generate.Started();
  generate.Ended(absl::StatusCode::kOk, absl::Milliseconds(40));
  generate.Started();
  generate.Ended(absl::StatusCode::kOk, absl::Milliseconds(60));
  generate.Ended(absl::StatusCode::kNotFound, absl::ZeroDuration());
  calls_.Add("/hanmo.v1.Generation/GenerateStream", "server_stream").Started();
  const std::string text = Text();
  const std::string labels =
      "grpc_method=\"Generate\",grpc_service=\"hanmo.v1.Generation\",grpc_type=\"unary\"";
  EXPECT_THAT(text, HasSubstr("grpc_server_started_total{" + labels + "} 2"));
  EXPECT_THAT(text, HasSubstr("grpc_server_handled_total{grpc_code=\"OK\"," + labels + "} 2"));
  EXPECT_THAT(text, HasSubstr("grpc_server_handled_total{grpc_code=\"NOT_FOUND\"," + labels));
  EXPECT_THAT(text, Not(HasSubstr("CANCELLED")));
  EXPECT_THAT(text, HasSubstr("grpc_server_handling_seconds_count{" + labels + "} 3"));
  EXPECT_THAT(text, HasSubstr("grpc_type=\"server_stream\"} 1"));
}

TEST_F(CallMetricsTest, CodesThatDoNotExistAreUnknown) {
  CallMetrics::Method& method = calls_.Add("/a.B/C", "unary");
  method.Ended(static_cast<absl::StatusCode>(77), absl::ZeroDuration());
  EXPECT_THAT(Text(), HasSubstr("grpc_server_handled_total{grpc_code=\"UNKNOWN\""));
}

}  // namespace
}  // namespace hanmo
