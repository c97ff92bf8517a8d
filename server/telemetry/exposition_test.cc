#include "server/telemetry/exposition.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"
#include "server/telemetry/metrics.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class ExpositionTest : public ::testing::Test {
 protected:
  ExpositionTest() {
    metrics_.OnLoad(0, 5, 3);
    metrics_.OnLoad(1, 2, 1);
    metrics_.OnPages(0, 0, 30, 100);
    metrics_.OnPages(1, 0, 20, 100);
  }
  std::string Text(bool vllm_names) const {
    const Exposition exposition(metrics_.registry(), vllm_names, [this] { return ready_; });
    return prometheus::TextSerializer().Serialize(exposition.Collect());
  }

  bool ready_ = false;
  Metrics metrics_{{{"poet", "text"}, {"painter", "picture"}}, 2, "1.2.3"};
};

TEST_F(ExpositionTest, TheGatewaysGaugesAreSumsWithoutLabels) {
  const std::string text = Text(false);
  EXPECT_THAT(text, HasSubstr("\nhanmo_queued_requests 7\n"));
  EXPECT_THAT(text, HasSubstr("\nhanmo_active_requests 4\n"));
  EXPECT_THAT(text, HasSubstr("\nhanmo_kv_cache_utilization_ratio 0.25\n"));
  EXPECT_THAT(text, HasSubstr("hanmo_requests_waiting{model=\"poet\"} 5"));
  EXPECT_THAT(text, Not(HasSubstr("vllm:")));
}

TEST_F(ExpositionTest, ReadinessIsAskedForEachTime) {
  EXPECT_THAT(Text(false), HasSubstr("\nhanmo_ready 0\n"));
  ready_ = true;
  EXPECT_THAT(Text(false), HasSubstr("\nhanmo_ready 1\n"));
}

TEST_F(ExpositionTest, VllmsNamesComeBesideOurs) {
  metrics_.OnFirstToken(0, absl::Milliseconds(20));
  metrics_.OnTextEnd(0, {SampleEnd::kLength, 12, 5, absl::Seconds(2)});
  const std::string text = Text(true);
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_waiting{model_name=\"poet\"} 5"));
  EXPECT_THAT(text, HasSubstr("vllm:num_requests_running{model_name=\"poet\"} 3"));
  EXPECT_THAT(text, HasSubstr("vllm:kv_cache_usage_perc{model_name=\"poet\"} 0.25"));
  EXPECT_THAT(text, HasSubstr("vllm:cache_config_info{model_name=\"poet\",block_size=\"16\",num_"
                              "gpu_blocks=\"200\"} 1"));
  EXPECT_THAT(
      text, HasSubstr("vllm:time_to_first_token_seconds_bucket{model_name=\"poet\",le=\"0.025\"}"));
  EXPECT_THAT(text, HasSubstr("vllm:inter_token_latency_seconds_count{model_name=\"poet\"} 0"));
  EXPECT_THAT(text,
              HasSubstr("vllm:request_time_per_output_token_seconds_sum{model_name=\"poet\"} 0.5"));
  EXPECT_THAT(text, HasSubstr("vllm:e2e_request_latency_seconds_count{model_name=\"poet\"} 0"));
  EXPECT_THAT(
      text,
      HasSubstr("vllm:request_success_total{finished_reason=\"length\",model_name=\"poet\"} 1"));
  EXPECT_THAT(text, HasSubstr("hanmo_requests_waiting{model=\"poet\"} 5"));
}

}  // namespace
}  // namespace hanmo
