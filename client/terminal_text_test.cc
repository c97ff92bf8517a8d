#include "client/terminal_text.h"

#include "gtest/gtest.h"

namespace hanmo {
namespace {

TEST(TerminalTextTest, WritingPassesUnchanged) {
  const std::string text = "春眠不觉晓，\n\tépée 🌸 e\u0301";
  EXPECT_EQ(SafeForTerminal(text), text);
}

TEST(TerminalTextTest, WhatSteersATerminalIsShownNotDone) {
  EXPECT_EQ(SafeForTerminal("a\x1b[2Jb"), "a\uFFFD[2Jb");
  EXPECT_EQ(SafeForTerminal("over\rwritten\b\a\x7f"), "over\uFFFDwritten\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(SafeForTerminal("\u009b31m"), "\uFFFD31m");  // the one-character form of ESC [
  EXPECT_EQ(SafeForTerminal("\u202eevil\u2066"), "\uFFFDevil\uFFFD");
  EXPECT_EQ(SafeForTerminal(std::string("\0", 1)), "\uFFFD");
}

TEST(TerminalTextTest, EachMalformedByteIsOneReplacement) {
  EXPECT_EQ(SafeForTerminal("a\xFF\xC0z"), "a\uFFFD\uFFFDz");
  EXPECT_EQ(SafeForTerminal("\xE6\x98"), "\uFFFD\uFFFD");
}

TEST(TerminalTextTest, Utf8IsJudgedAsUnicodeDoes) {
  EXPECT_TRUE(IsUtf8(""));
  EXPECT_TRUE(IsUtf8("山水\U0010FFFF"));
  EXPECT_FALSE(IsUtf8("\xC0\xAF"));          // overlong
  EXPECT_FALSE(IsUtf8("\xE0\x80\xAF"));      // overlong
  EXPECT_FALSE(IsUtf8("\xF0\x80\x80\xAF"));  // overlong
  EXPECT_FALSE(IsUtf8("\xED\xA0\x80"));      // surrogate
  EXPECT_FALSE(IsUtf8("\xF4\x90\x80\x80"));  // above U+10FFFF
  EXPECT_FALSE(IsUtf8("\xE5\xB1"));          // cut
  EXPECT_FALSE(IsUtf8("\x80"));
}

}  // namespace
}  // namespace hanmo
