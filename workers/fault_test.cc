#include "workers/fault.h"

#include <gtest/gtest.h>

#include "workers/testing/scripted_executor.h"

namespace hanmo {
namespace {

TEST(FaultTest, ReadsItsFlag) {
  EXPECT_EQ(ParseFault("abort-on-seed:7")->seed, 7u);
  EXPECT_EQ(ParseFault("abort-on-seed:7")->step, 1u);
  EXPECT_EQ(ParseFault("abort-on-seed:18446744073709551615@step:3")->seed, ~uint64_t{0});
  EXPECT_EQ(ParseFault("abort-on-seed:7@step:3")->step, 3u);
  for (const char* text :
       {"", "abort", "abort-on-seed:", "abort-on-seed:-1", "abort-on-seed:7@step:0",
        "abort-on-seed:7@step:", "abort-on-seed:7@step:1@step:2"}) {
    EXPECT_EQ(ParseFault(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(FaultDeathTest, AbortsAtTheStepOfTheSeedAndAtNoOther) {
  testing::ScriptedExecutor scripted("cpu");
  FaultyExecutor executor({7, 2}, &scripted);
  PictureJob picture;
  picture.seed = 6;
  executor.Begin(1, 0, picture, {});
  picture.seed = 7;
  executor.Begin(2, 0, picture, {});
  const auto step = [&](SampleHandle sample) {
    executor.Run({1, 0, StepKind::kDenoise, {{sample, 0, {}, false}}});
  };
  for (int i = 0; i < 3; ++i) step(1);
  step(2);
  EXPECT_DEATH(step(2), "");
  executor.Drop({2});
  step(2);
}

}  // namespace
}  // namespace hanmo
