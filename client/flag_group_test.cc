#include "client/flag_group.h"

#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class FlagGroupTest : public ::testing::Test {
 protected:
  FlagGroupTest() {
    FlagGroup group(&app_, "Group");
    group.Count({"--steps", "N", "denoising steps", "20"}, 1, 1000,
                [this](uint64_t value) { count_ = value; });
    group.Seed({"--seed", "N", "seed"}, [this](uint64_t value) { count_ = value; });
    group.Number({"--top-p", "X", "nucleus"}, {0, 1, true}, [this](float x) { number_ = x; });
    group.Number({"--penalty", "X", "penalty"}, {-2, 2}, [this](float x) { number_ = x; });
    group.Time({"--timeout", "TIME", "limit"}, "never", [this](absl::Duration t) { time_ = t; });
    group.Time({"--wait", "TIME", "limit"}, "", [this](absl::Duration t) { time_ = t; });
    group.Choice({"--sampler", "NAME", "sampler"}, {"ddim", "euler"},
                 [this](const std::string& name) { text_ = name; });
    group.Text({"--prompt", "TEXT", "prompt"}, &text_);
    group.Texts({"--stop", "TEXT", "stop"}, 2, &texts_);
  }

  // What is wrong; empty for nothing.
  std::string Parse(std::vector<std::string> arguments) {
    std::reverse(arguments.begin(), arguments.end());
    try {
      app_.parse(std::move(arguments));
    } catch (const CLI::ParseError& error) {
      return error.what();
    }
    return "";
  }

  CLI::App app_;
  uint64_t count_ = 0;
  float number_ = NAN;
  absl::Duration time_;
  std::string text_;
  std::vector<std::string> texts_;
};

TEST_F(FlagGroupTest, CountsKeepTheirRange) {
  EXPECT_EQ(Parse({"--steps", "1000"}), "");
  EXPECT_EQ(count_, 1000u);
  EXPECT_EQ(Parse({"--steps", "1001"}), "--steps: must be a whole number, 1 to 1000, got \"1001\"");
  for (const char* text : {"0", "-1", "", " 7", "7.0", "1e3", "0x10", "99999999999999999999"}) {
    EXPECT_THAT(Parse({"--steps", text}), HasSubstr("must be a whole number")) << text;
  }
}

TEST_F(FlagGroupTest, SeedsAreAllOf64Bits) {
  EXPECT_EQ(Parse({"--seed", "18446744073709551615"}), "");
  EXPECT_EQ(count_, UINT64_MAX);
  EXPECT_THAT(Parse({"--seed", "18446744073709551616"}), HasSubstr("0 to 2^64 - 1"));
  EXPECT_THAT(Parse({"--seed=-1"}), HasSubstr("0 to 2^64 - 1"));
}

TEST_F(FlagGroupTest, NumbersKeepTheirRange) {
  EXPECT_EQ(Parse({"--top-p", "0.9"}), "");
  EXPECT_FLOAT_EQ(number_, 0.9f);
  EXPECT_EQ(Parse({"--penalty", "-1.5"}), "");
  EXPECT_FLOAT_EQ(number_, -1.5f);
  EXPECT_EQ(Parse({"--top-p", "0"}), "--top-p: must be a number, above 0, at most 1, got \"0\"");
  for (const char* text : {"nan", "inf", "-inf", "2.001", "-2.001", "1,5", "", "x"}) {
    EXPECT_THAT(Parse({"--penalty", text}), HasSubstr("must be a number, -2 to 2")) << text;
  }
}

TEST_F(FlagGroupTest, TimesHaveUnits) {
  EXPECT_EQ(Parse({"--timeout", "1m30s"}), "");
  EXPECT_EQ(time_, absl::Seconds(90));
  EXPECT_EQ(Parse({"--timeout", "0"}), "");
  EXPECT_EQ(time_, absl::ZeroDuration());
  for (const char* text : {"30", "-1s", "inf", "soon", ""}) {
    EXPECT_THAT(Parse({"--timeout", text}), HasSubstr("must be a time such as")) << text;
  }
  EXPECT_THAT(Parse({"--wait", "0"}), HasSubstr("must be a time such as"));
}

TEST_F(FlagGroupTest, ChoicesAreListed) {
  EXPECT_EQ(Parse({"--sampler", "euler"}), "");
  EXPECT_EQ(text_, "euler");
  EXPECT_EQ(Parse({"--sampler", "dpm"}), "--sampler: must be one of ddim, euler, got \"dpm\"");
}

TEST_F(FlagGroupTest, TextsAreAnyUtf8) {
  for (const char* text : {"两座青山", "-x", "[a,b]", "--steps", "a=b", ""}) {
    EXPECT_EQ(Parse({"--prompt", text}), "") << text;
    EXPECT_EQ(text_, text);
  }
  EXPECT_EQ(Parse({"--prompt", "\xff"}), "--prompt: must be valid UTF-8");
}

TEST_F(FlagGroupTest, ListsRepeatUpToTheirLimit) {
  EXPECT_EQ(Parse({"--stop", "a,b", "--stop", "[c]"}), "");
  EXPECT_THAT(texts_, ElementsAre("a,b", "[c]"));
  EXPECT_NE(Parse({"--stop", "a", "--stop", "b", "--stop", "c"}), "");
}

TEST_F(FlagGroupTest, HelpTellsRangeAndDefault) {
  EXPECT_THAT(app_.help(), HasSubstr("denoising steps (1 to 1000; default: 20)"));
  EXPECT_THAT(app_.help(), HasSubstr("nucleus (above 0, at most 1)"));
  EXPECT_THAT(app_.help(), HasSubstr("sampler (ddim, euler)"));
}

}  // namespace
}  // namespace hanmo
