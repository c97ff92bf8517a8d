#include "server/rpc/text_assembler.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/rpc/testing/test_models.h"
#include "server/text/utf8.h"

namespace hanmo {
namespace {

// Token i is byte i, 256 the end of text.
class TextAssemblerTest : public ::testing::Test {
 protected:
  TextAssembler Make(std::vector<std::string> stop = {}, bool include_stop = false) {
    auto assembler =
        TextAssembler::Create({model_.tokenizer.get(), std::move(stop), include_stop, {256}});
    EXPECT_TRUE(assembler.ok()) << assembler.status();
    return *std::move(assembler);
  }

  static std::vector<Token> Tokens(const std::string& bytes) {
    std::vector<Token> tokens;
    for (const char c : bytes) {
      tokens.emplace_back();
      tokens.back().id = static_cast<unsigned char>(c);
    }
    return tokens;
  }

  const Model model_ = testing::ByteModel(0, "poet");
};

TEST_F(TextAssemblerTest, OnlyWholeCharactersAppear) {
  TextAssembler assembler = Make();
  std::string text;
  for (const Token& token : Tokens("a山🌲b")) {
    auto piece = assembler.Append({&token, 1});
    ASSERT_TRUE(piece.ok()) << piece.status();
    EXPECT_TRUE(IsValidUtf8(piece->text));
    text += piece->text;
  }
  EXPECT_EQ(text + *assembler.Finish(), "a山🌲b");
}

TEST_F(TextAssemblerTest, AnUnfinishedCharacterEndsAsReplacement) {
  TextAssembler assembler = Make();
  EXPECT_EQ(assembler.Append(Tokens("a\xe5\xb1"))->text, "a");
  EXPECT_EQ(*assembler.Finish(), "\xEF\xBF\xBD");
}

TEST_F(TextAssemblerTest, EndingTokensAreTakenButNotShown) {
  TextAssembler assembler = Make();
  std::vector<Token> tokens = Tokens("ab");
  tokens.emplace_back();
  tokens.back().id = 256;
  const auto piece = assembler.Append(tokens);
  EXPECT_EQ(piece->text, "ab");
  EXPECT_EQ(piece->tokens, 3u);
}

TEST_F(TextAssemblerTest, NothingAfterAStopString) {
  TextAssembler assembler = Make({"。", "zz"});
  EXPECT_EQ(assembler.Append(Tokens("山z"))->text, "山");
  const auto piece = assembler.Append(Tokens("y。more"));
  EXPECT_EQ(piece->text, "zy");
  EXPECT_EQ(piece->tokens, 4u);  // y and the three bytes of the stop
  ASSERT_NE(assembler.stopped_by(), nullptr);
  EXPECT_EQ(*assembler.stopped_by(), "。");
  EXPECT_EQ(assembler.Append(Tokens("x"))->tokens, 0u);
  EXPECT_EQ(*assembler.Finish(), "");
}

TEST_F(TextAssemblerTest, TheStopStringStaysWhenAsked) {
  TextAssembler assembler = Make({"。"}, true);
  EXPECT_EQ(assembler.Append(Tokens("山。水"))->text, "山。");
}

TEST_F(TextAssemblerTest, AHalfStopStringIsShownAtTheEnd) {
  TextAssembler assembler = Make({"END"});
  EXPECT_EQ(assembler.Append(Tokens("aEN"))->text, "a");
  EXPECT_EQ(*assembler.Finish(), "EN");
  EXPECT_EQ(assembler.stopped_by(), nullptr);
}

// Of Painter's words: 5 is 山, 6 水, 10 on are letters, 1 is unknown and 3 ends.
TEST(CaptionTest, ChineseHasNoSpacesAndStopsAreFoundInIt) {
  const Model scribe = testing::Scribe(0, "scribe");
  const auto caption = [&](const std::vector<uint32_t>& ids, std::vector<std::string> stop = {},
                           std::vector<uint32_t> begun = {}) {
    auto assembler =
        TextAssembler::Create({scribe.tokenizer.get(), std::move(stop), false, {3}, true, begun});
    EXPECT_TRUE(assembler.ok()) << assembler.status();
    std::string text;
    for (const uint32_t id : ids) {
      Token token;
      token.id = id;
      text += assembler->Append({&token, 1})->text;
    }
    return text + *assembler->Finish();
  };
  EXPECT_EQ(caption({5, 6, 5, 3}), "山水山");
  EXPECT_EQ(caption({10, 11, 5, 12, 3}), "a b山c");
  EXPECT_EQ(caption({7, 5, 6, 8}, {"山水"}), "一");
  // It goes on after words.
  EXPECT_EQ(caption({10, 11}, {}, {12}), " a b");
  EXPECT_EQ(caption({6, 10}, {}, {5}), "水a");
}

TEST_F(TextAssemblerTest, WithoutATokenizerThereIsNoText) {
  auto assembler = TextAssembler::Create({nullptr, {}, false, {256}});
  const auto piece = assembler->Append(Tokens("ab"));
  EXPECT_EQ(piece->text, "");
  EXPECT_EQ(piece->tokens, 2u);
  EXPECT_EQ(*assembler->Finish(), "");
}

}  // namespace
}  // namespace hanmo
