#include "server/text/stop_strings.h"

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/text/utf8.h"

namespace hanmo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

StopStrings Create(std::vector<std::string> strings, bool include_stop = false) {
  return StopStrings::Create(std::move(strings), include_stop).value();
}

std::vector<std::string> Pieces(StopStrings stops, const std::vector<std::string>& pieces) {
  std::vector<std::string> shown;
  for (const std::string& piece : pieces) shown.push_back(stops.Append(piece));
  shown.push_back(stops.Finish());
  return shown;
}

TEST(StopStringsTest, PassesTextThroughWithoutStopStrings) {
  EXPECT_THAT(Pieces(Create({}), {"山", "", "水"}), ElementsAre("山", "", "水", ""));
}

TEST(StopStringsTest, CutsBeforeTheStopString) {
  StopStrings stops = Create({"\n\n", "END"});
  EXPECT_EQ(stops.Append("poem EN"), "poem ");
  EXPECT_EQ(stops.match(), std::nullopt);
  EXPECT_EQ(stops.Append("D and more"), "");
  ASSERT_TRUE(stops.match());
  EXPECT_EQ(stops.match()->index, 1u);
  EXPECT_EQ(stops.match()->cut, 5u);
  EXPECT_EQ(stops.Append("END"), "");
  EXPECT_EQ(stops.Finish(), "");
}

TEST(StopStringsTest, IncludesTheStopStringWhenAsked) {
  StopStrings stops = Create({"END"}, true);
  EXPECT_EQ(stops.Append("poem EN"), "poem ");
  EXPECT_EQ(stops.Append("D and more"), "END");
  EXPECT_EQ(stops.match()->cut, 8u);
}

TEST(StopStringsTest, HoldsBackOnlyWhatCanStillStop) {
  EXPECT_THAT(Pieces(Create({"aab"}), {"x", "a", "a", "a", "c", "a"}),
              ElementsAre("x", "", "", "a", "aac", "", "a"));
  EXPECT_THAT(Pieces(Create({"山水"}), {"山", "", "山", "石"}),
              ElementsAre("", "", "山", "山石", ""));
}

TEST(StopStringsTest, TheFirstCompleteStringWins) {
  StopStrings stops = Create({"abcd", "bc"});
  EXPECT_EQ(stops.Append("abcd"), "a");
  EXPECT_EQ(stops.match()->index, 1u);
}

TEST(StopStringsTest, TheLongestWinsAtTheSameByte) {
  StopStrings stops = Create({"c", "abc", "bc"});
  EXPECT_EQ(stops.Append("xabc"), "x");
  EXPECT_EQ(stops.match()->index, 1u);
}

TEST(StopStringsTest, RefusesUnusableStrings) {
  const std::vector<std::string> unusable = {"", "\xff",
                                             std::string(StopStrings::kMaxBytes + 1, 'a')};
  for (const std::string& text : unusable) {
    const absl::Status status = StopStrings::Create({"ok", text}, false).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("stop[1]"));
  }
  const std::vector<std::string> many(StopStrings::kMaxStrings + 1, "a");
  EXPECT_THAT(StopStrings::Create(many, false).status().message(), HasSubstr("at most 64"));
}

// Against the plain definition: the smallest end of any occurrence, of those the longest.
TEST(StopStringsTest, ResultDoesNotDependOnThePieces) {
  std::mt19937 draw(3);
  const auto word = [&](size_t longest) {
    std::string text;
    for (size_t n = 1 + draw() % longest; n > 0; --n) text += (draw() % 3) ? "山" : "b";
    return text;
  };
  for (int round = 0; round < 3000; ++round) {
    std::vector<std::string> strings(1 + draw() % 3);
    for (std::string& text : strings) text = word(4);
    const std::string text = word(14);
    size_t end = std::string::npos;
    size_t size = 0;
    for (const std::string& stop : strings) {
      const size_t at = text.find(stop);
      if (at == std::string::npos || at + stop.size() > end) continue;
      size = at + stop.size() < end ? stop.size() : std::max(size, stop.size());
      end = at + stop.size();
    }
    const bool include = draw() % 2;
    const bool stopped = end != std::string::npos;
    const size_t cut = !stopped ? text.size() : include ? end : end - size;

    StopStrings stops = Create(strings, include);
    std::string shown;
    for (size_t at = 0; at < text.size();) {
      size_t next = at + 1;
      while (next < text.size() && (draw() % 2 || (text[next] & 0xC0) == 0x80)) ++next;
      const std::string piece = stops.Append(text.substr(at, next - at));
      EXPECT_TRUE(IsValidUtf8(piece));
      shown += piece;
      at = next;
    }
    shown += stops.Finish();
    EXPECT_EQ(shown, text.substr(0, cut)) << text << ::testing::PrintToString(strings);
    ASSERT_EQ(stops.match().has_value(), stopped);
    if (stopped) {
      EXPECT_EQ(stops.match()->cut, cut);
    }
  }
}

}  // namespace
}  // namespace hanmo
