#include "server/telemetry/tracer.h"

#include <gtest/gtest.h>

#include "server/batcher/clock.h"

namespace hanmo {
namespace {

constexpr char kParent[] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

TEST(TraceContextTest, OnlyWellFormedHeadersHaveATraceId) {
  EXPECT_EQ(TraceIdOf(kParent), "0af7651916cd43dd8448eb211c80319c");
  // A later version may have more.
  EXPECT_EQ(TraceIdOf("cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what"),
            "0af7651916cd43dd8448eb211c80319c");
  for (const char* wrong : {
           "",
           "00",
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
           "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
           "00-00000000000000000000000000000000-b7ad6b7169203331-01",
           "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
           "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
           "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what",
           "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01what",
           "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
           "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
       }) {
    EXPECT_EQ(TraceIdOf(wrong), "") << wrong;
  }
}

TEST(TracerTest, ASpanBelongsToItsCallersTrace) {
  if (!Tracer::Available()) GTEST_SKIP() << "built without OpenTelemetry";
  EXPECT_EQ(Tracer::Create({.endpoint = "localhost"}).status().code(),
            absl::StatusCode::kInvalidArgument);
  // Nobody listens there: spans are dropped, and nothing waits for them.
  auto tracer =
      Tracer::Create({.endpoint = "http://127.0.0.1:1", .one_in = 1000000, .version = "0"});
  ASSERT_TRUE(tracer.ok()) << tracer.status();
  const auto span = (*tracer)->Begin("a.B/C", kParent, "", SteadyNow());
  EXPECT_TRUE(span->recording()) << "the caller wants it";
  EXPECT_EQ(TraceIdOf(span->traceparent()), TraceIdOf(kParent));
  EXPECT_NE(span->traceparent(), kParent);
  span->AddPhase("queue", SteadyNow(), SteadyNow(), {{"steps", int64_t{3}}});
  span->End(SteadyNow(), absl::OkStatus(), {{"model", "a"}});
  std::string unwanted = kParent;
  unwanted.back() = '0';
  EXPECT_FALSE((*tracer)->Begin("a.B/C", unwanted, "", SteadyNow())->recording());
  int traced = 0;
  for (int i = 0; i < 100; ++i) {
    traced += (*tracer)->Begin("a.B/C", "malformed", "", SteadyNow())->recording();
  }
  EXPECT_LT(traced, 3) << "one in a million";
}

}  // namespace
}  // namespace hanmo
