#include "server/text/chinese_spacing.h"

#include <vector>

#include "gtest/gtest.h"

namespace hanmo {
namespace {

std::string Joined(const std::vector<std::string>& pieces) {
  ChineseSpacing spacing;
  std::string text;
  for (const std::string& piece : pieces) text += spacing.Append(piece);
  return text + spacing.Finish();
}

TEST(ChineseSpacingTest, LeavesSpacesOutBesideChineseAlone) {
  EXPECT_EQ(Joined({"一 只 cat ， two cats"}), "一只cat，two cats");
  EXPECT_EQ(Joined({"山 水 。 「 古 」 … 夜"}), "山水。「古」…夜");
  EXPECT_EQ(Joined({"\xF0\xA0\x80\x80 \xF0\xA0\x80\x81"}),
            "\xF0\xA0\x80\x80\xF0\xA0\x80\x81");  // extension B
  EXPECT_EQ(Joined({"café au lait , 5 %"}), "café au lait , 5 %");
  EXPECT_EQ(Joined({"", "a", "", " b"}), "a b");
}

TEST(ChineseSpacingTest, PiecesChangeNothing) {
  EXPECT_EQ(Joined({"一", " 只", " cat", " ，", " two", " cats"}), "一只cat，two cats");
  EXPECT_EQ(Joined({"two ", "cats ", "山 ", "水"}), "two cats山水");
  EXPECT_EQ(Joined({"two "}), "two ");
  EXPECT_EQ(Joined({"山 "}), "山");
}

}  // namespace
}  // namespace hanmo
