#include "client/agreement.h"

#include "gtest/gtest.h"

namespace hanmo {
namespace {

TEST(AgreementTest, CountsCommonCharactersInOrder) {
  EXPECT_EQ(Agreement("两座青山", "两座青山"), 1);
  EXPECT_EQ(Agreement("两座青山，一叶扁舟。", "两座 青山 一叶扁舟"), 1);
  EXPECT_EQ(Agreement("", ""), 1);
  EXPECT_EQ(Agreement("山", ""), 0);
  EXPECT_EQ(Agreement("山水", "鸟鱼"), 0);
  // 两…青山 of four and of five characters.
  EXPECT_DOUBLE_EQ(Agreement("两只青山", "两座大青山"), 2.0 * 3 / 9);
  // Backwards only one of them is in order.
  EXPECT_DOUBLE_EQ(Agreement("山青座两", "两座青山"), 2.0 * 1 / 8);
  EXPECT_DOUBLE_EQ(Agreement("a cat", "a hat"), 2.0 * 3 / 8);
}

}  // namespace
}  // namespace hanmo
