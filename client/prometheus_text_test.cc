#include "client/prometheus_text.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::Pair;
using ::testing::UnorderedElementsAre;

TEST(PrometheusTextTest, ReadsWhatTheFormatAllows) {
  const auto samples = ParsePrometheusText(R"(# HELP a_total Things
# TYPE a_total counter
a_total 3
  a:b { x = "1" , y="2", } 1.5e3 1700000000000

h_bucket{le="+Inf"}	+Inf
n NaN
quoted{path="C:\\dir\n\"{x},",z=""} -1
# EOF)");
  ASSERT_TRUE(samples.ok()) << samples.status();
  ASSERT_EQ(samples->size(), 5u);
  EXPECT_EQ((*samples)[0].name, "a_total");
  EXPECT_EQ((*samples)[0].value, 3);
  EXPECT_EQ((*samples)[1].name, "a:b");
  EXPECT_THAT((*samples)[1].labels, UnorderedElementsAre(Pair("x", "1"), Pair("y", "2")));
  EXPECT_EQ((*samples)[1].value, 1500);
  EXPECT_TRUE(std::isinf((*samples)[2].value));
  EXPECT_TRUE(std::isnan((*samples)[3].value));
  EXPECT_THAT((*samples)[4].labels,
              UnorderedElementsAre(Pair("path", "C:\\dir\n\"{x},"), Pair("z", "")));
}

TEST(PrometheusTextTest, NamesTheLineThatIsMalformed) {
  for (const char* line :
       {"a", "a{", "a{x=1} 1", "a{x=\"1} 1", "a{x=\"\\t\"} 1", "a{x=\"1\" y=\"2\"} 1", "1a 1",
        "a one", "a 1 soon", "a 1 2 3", "a{:=\"\"} 1", "<html>", "a{x=\"\\"}) {
    const auto samples = ParsePrometheusText(std::string("ok 1\n") + line + "\n");
    EXPECT_EQ(samples.status().code(), absl::StatusCode::kDataLoss) << line;
    EXPECT_THAT(std::string(samples.status().message()), HasSubstr("line 2 ")) << line;
  }
}

}  // namespace
}  // namespace hanmo
