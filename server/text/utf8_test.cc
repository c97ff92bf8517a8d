#include "server/text/utf8.h"

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace hanmo {
namespace {

TEST(Utf8Test, AcceptsEveryScalarValueAndNothingBetween) {
  for (uint32_t c = 0; c <= 0x10FFFF; ++c) {
    std::string text;
    if (c < 0x80) {
      text = {static_cast<char>(c)};
    } else if (c < 0x800) {
      text = {static_cast<char>(0xC0 | c >> 6), static_cast<char>(0x80 | (c & 63))};
    } else if (c < 0x10000) {
      text = {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
              static_cast<char>(0x80 | (c & 63))};
    } else {
      text = {static_cast<char>(0xF0 | c >> 18), static_cast<char>(0x80 | (c >> 12 & 63)),
              static_cast<char>(0x80 | (c >> 6 & 63)), static_cast<char>(0x80 | (c & 63))};
    }
    const bool is_surrogate = c >= 0xD800 && c <= 0xDFFF;
    ASSERT_EQ(IsValidUtf8(text), !is_surrogate) << c;
  }
}

TEST(Utf8Test, RefusesIllFormedBytes) {
  for (const char* text :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "a\xe5\xb1", "\xe5\xb1z"}) {
    EXPECT_FALSE(IsValidUtf8(text)) << ::testing::PrintToString(text);
  }
}

// The replacement practice of Unicode 15, table 3-8 and its neighbours.
TEST(Utf8Test, ReplacesEachMaximalIllFormedPart) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"a\xf1\x80\x80\xe1\x80\xc2"
       "b\x80"
       "c\x80\xbf"
       "d",
       "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd"},
      {"\xc0\xafz", "\uFFFD\uFFFDz"},
      {"\xed\xa0\x80z", "\uFFFD\uFFFD\uFFFDz"},
      {"\xf4\x91\x92\x93\xffz", "\uFFFD\uFFFD\uFFFD\uFFFD\uFFFDz"},
      {"山水", "山水"},
  };
  for (const auto& [bytes, text] : cases) {
    std::string out;
    EXPECT_EQ(AppendUtf8(bytes, &out), bytes.size());
    EXPECT_EQ(out, text);
  }
}

TEST(Utf8Test, LeavesAnUnfinishedCharacter) {
  std::string out = "x";
  EXPECT_EQ(AppendUtf8("山\xf0\x9f\x98", &out), 3u);
  EXPECT_EQ(out, "x山");
  EXPECT_EQ(AppendUtf8("", &out), 0u);
}

}  // namespace
}  // namespace hanmo
