#include "workers/models/expert_ranges.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace hanmo {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

absl::StatusOr<std::vector<ExpertRange>> Read(const char* text, int64_t train_timesteps = 1000) {
  return ReadExpertRanges(json::parse(text), train_timesteps);
}

void ExpectRefused(const char* text, const char* message) {
  const auto ranges = Read(text);
  EXPECT_EQ(ranges.status().code(), absl::StatusCode::kInvalidArgument) << text;
  EXPECT_THAT(std::string(ranges.status().message()), HasSubstr(message)) << text;
}

TEST(ExpertRangesTest, AreSortedAsPicturesNeedThem) {
  const auto ranges = Read(R"({"experts": [
      {"subfolder": "low", "t_min": 0, "t_max": 30},
      {"subfolder": "high", "t_min": 700, "t_max": 1000},
      {"subfolder": "middle", "t_min": 30, "t_max": 700}]})");
  ASSERT_TRUE(ranges.ok()) << ranges.status();
  ASSERT_EQ(ranges->size(), 3u);
  EXPECT_EQ((*ranges)[0].subfolder, "high");
  EXPECT_EQ((*ranges)[1].t_min, 30);
  EXPECT_EQ((*ranges)[2].t_max, 30);
  EXPECT_EQ(ExpertAt(*ranges, 999), 0u);
  EXPECT_EQ(ExpertAt(*ranges, 700), 0u);
  EXPECT_EQ(ExpertAt(*ranges, 699.5f), 1u);
  EXPECT_EQ(ExpertAt(*ranges, 30), 1u);
  EXPECT_EQ(ExpertAt(*ranges, 29), 2u);
  // Beyond what was trained.
  EXPECT_EQ(ExpertAt(*ranges, 1001), 0u);
  EXPECT_EQ(ExpertAt(*ranges, -1), 2u);
}

TEST(ExpertRangesTest, OneNetworkIsOneExpert) {
  const auto ranges = Read("{}", 50);
  ASSERT_TRUE(ranges.ok());
  ASSERT_EQ(ranges->size(), 1u);
  EXPECT_EQ((*ranges)[0].subfolder, "unet");
  EXPECT_EQ((*ranges)[0].t_max, 50);
}

TEST(ExpertRangesTest, ABoundaryRatioIsTwo) {
  const auto ranges = Read(R"({"boundary_ratio": 0.8755})");
  ASSERT_TRUE(ranges.ok()) << ranges.status();
  ASSERT_EQ(ranges->size(), 2u);
  // A network from 875.5 on has 876 as its first timestep.
  EXPECT_EQ((*ranges)[0].subfolder, "unet");
  EXPECT_EQ((*ranges)[0].t_min, 876);
  EXPECT_EQ((*ranges)[1].subfolder, "unet_2");
  EXPECT_EQ((*ranges)[1].t_max, 876);
}

TEST(ExpertRangesTest, FaultsAreNamed) {
  ExpectRefused(R"({"experts": []})", "experts: a list of 1 to 1000");
  ExpectRefused(R"({"experts": {"subfolder": "a"}})", "experts: a list");
  ExpectRefused(R"({"experts": [7]})", "experts[0]: an object expected");
  ExpectRefused(R"({"experts": [{"subfolder": "a", "t_min": 0}]})", "experts[0].t_max: missing");
  for (const char* folder : {R"("")", R"("..")", R"("a/b")", R"("/etc")", "3"}) {
    const std::string text = std::string(R"({"experts": [{"subfolder": )") + folder +
                             R"(, "t_min": 0, "t_max": 1000}]})";
    ExpectRefused(text.c_str(), "experts[0].subfolder: the name of a folder expected");
  }
  for (const char* number : {"-1", "0.5", "1001", R"("0")"}) {
    const std::string text = std::string(R"({"experts": [{"subfolder": "a", "t_min": )") + number +
                             R"(, "t_max": 1000}]})";
    ExpectRefused(text.c_str(), "experts[0].t_min: an integer from 0 to 1000 expected");
  }
  ExpectRefused(R"({"experts": [{"subfolder": "a", "t_min": 5, "t_max": 5}]})",
                "experts[0]: t_min 5, below its t_max 5 expected");
  ExpectRefused(
      R"({"experts": [{"subfolder": "a", "t_min": 0, "t_max": 1000, "guidance_scale": 3}]})",
      "experts[0].guidance_scale: not supported");
  ExpectRefused(R"({"boundary_ratio": 1})", "boundary_ratio: a number above 0 and below 1");
  ExpectRefused(R"({"boundary_ratio": "0.5"})", "boundary_ratio: a number");
  ExpectRefused(R"({"boundary_ratio": 0.5, "experts": []})", "one of them expected");
}

TEST(ExpertRangesTest, GapsAndOverlapsAreNamed) {
  ExpectRefused(R"({"experts": [{"subfolder": "a", "t_min": 0, "t_max": 500},
                                {"subfolder": "b", "t_min": 510, "t_max": 1000}]})",
                "experts: none has the timesteps 500 to 509, between a and b");
  ExpectRefused(R"({"experts": [{"subfolder": "a", "t_min": 0, "t_max": 501},
                                {"subfolder": "b", "t_min": 500, "t_max": 1000}]})",
                "experts: both a and b have the timesteps 500 to 500");
  ExpectRefused(R"({"experts": [{"subfolder": "a", "t_min": 0, "t_max": 900}]})",
                "experts: none has the timesteps 900 to 999");
  ExpectRefused(R"({"experts": [{"subfolder": "a", "t_min": 10, "t_max": 1000}]})",
                "experts: none has the timesteps 0 to 9, below a");
}

}  // namespace
}  // namespace hanmo
