#include "client/load/load_summary.h"
#include "client/load/poisson.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr absl::Time kStart = absl::UnixEpoch();

Outcome Answer(double due_s, double latency_s) {
  Outcome outcome;
  outcome.due = kStart + absl::Seconds(due_s);
  outcome.latency = absl::Seconds(latency_s);
  return outcome;
}

TEST(TimesTest, QuantilesAreLinearBetweenTheNearest) {
  Times times;
  for (const int value : {50, 10, 40, 20, 30}) times.Add(absl::Seconds(value));
  EXPECT_DOUBLE_EQ(times.Mean(), 30);
  EXPECT_DOUBLE_EQ(times.Quantile(0), 10);
  EXPECT_DOUBLE_EQ(times.Quantile(.5), 30);
  EXPECT_DOUBLE_EQ(times.Quantile(.9), 46);
  EXPECT_DOUBLE_EQ(times.Quantile(1), 50);
  Times one;
  one.Add(absl::Seconds(7));
  EXPECT_DOUBLE_EQ(one.Quantile(.99), 7);
}

TEST(PoissonTest, GapsAreExponentialAndTheSeedDecides) {
  PoissonProcess process(100, 1);
  absl::Duration last;
  int longer = 0;
  for (int i = 0; i < 10000; ++i) {
    const absl::Duration at = process.Next();
    ASSERT_GE(at, last);
    longer += at - last > absl::Milliseconds(10);
    last = at;
  }
  // Standard deviations: 1 s and 48.
  EXPECT_NEAR(absl::ToDoubleSeconds(last), 100, 4);
  EXPECT_NEAR(longer, 3679, 200);
  EXPECT_EQ(PoissonProcess(5, 3).Next(), PoissonProcess(5, 3).Next());
  EXPECT_NE(PoissonProcess(5, 3).Next(), PoissonProcess(5, 4).Next());
}

TEST(LoadSummaryTest, CountsWhatIsGoodOfAllThatWasSent) {
  LoadSummary summary({.from = kStart + absl::Seconds(1), .slo = absl::Seconds(2)});
  summary.Add(Answer(0.5, 100));  // of the warm-up
  for (const double latency_s : {1, 2, 3}) {
    Outcome outcome = Answer(1, latency_s);
    outcome.pictures = 1;
    outcome.steps = 20;
    summary.Add(outcome);
  }
  Outcome refused = Answer(2, 0.001);
  refused.status = grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
  summary.Add(refused);
  Outcome cut = Answer(2, 3);
  cut.status = grpc::Status(grpc::StatusCode::CANCELLED, "");
  cut.cut = true;
  summary.Add(cut);
  const nlohmann::ordered_json json = summary.Json();
  EXPECT_EQ(json["sent"], 5);
  EXPECT_EQ(json["ok"], 3);
  EXPECT_EQ(json["cut"], 1);
  EXPECT_EQ(json["failed"].dump(), R"({"RESOURCE_EXHAUSTED":1})");
  EXPECT_DOUBLE_EQ(json["seconds"], 4);
  EXPECT_DOUBLE_EQ(json["latency_s"]["mean"], 2);
  EXPECT_DOUBLE_EQ(json["latency_s"]["max"], 3);
  EXPECT_DOUBLE_EQ(json["requests_per_s"], 0.75);
  EXPECT_DOUBLE_EQ(json["steps_per_s"], 15);
  EXPECT_DOUBLE_EQ(json["within_slo"], 0.4);
  EXPECT_DOUBLE_EQ(json["goodput_per_s"], 0.5);
  EXPECT_FALSE(json.contains("tokens_per_s"));
  EXPECT_EQ(summary.first_failure().error_message(), "full");
  const std::string text = summary.Text();
  EXPECT_THAT(text, HasSubstr("5 sent, 3 ok, 1 failed (RESOURCE_EXHAUSTED 1), 1 cut off in 4.0 s"));
  EXPECT_THAT(text, HasSubstr("40.0 % of those sent are ok within 2s: 0.50 requests/s"));
}

TEST(LoadSummaryTest, TokensOfEachTextHaveTheirOwnGaps) {
  LoadSummary summary({});
  Outcome outcome = Answer(0, 2);
  outcome.deltas = {{absl::Seconds(0.5), 1, 0},
                    {absl::Seconds(0.75), 1, 1},
                    {absl::Seconds(1), 2, 0},
                    {absl::Seconds(2), 4, 1}};
  summary.Add(outcome);
  const nlohmann::ordered_json json = summary.Json();
  EXPECT_DOUBLE_EQ(json["first_token_s"]["p50"], 0.5);
  EXPECT_DOUBLE_EQ(json["inter_token_s"]["mean"], 0.875);
  EXPECT_DOUBLE_EQ(json["inter_token_s"]["max"], 1.25);
  EXPECT_DOUBLE_EQ(json["tokens_per_s"], 4);
  EXPECT_THAT(summary.Text(), Not(HasSubstr("within")));
}

TEST(LoadSummaryTest, NothingSentIsNoDivision) {
  LoadSummary summary({.slo = absl::Seconds(1)});
  EXPECT_EQ(summary.Text(), "0 sent, 0 ok, 0 failed in 0.0 s\n");
  EXPECT_EQ(summary.Json()["sent"], 0);
}

}  // namespace
}  // namespace hanmo
