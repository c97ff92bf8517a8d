#include "server/text/detokenizer.h"

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/text/testing/tokenizer_goldens.h"
#include "server/text/utf8.h"

namespace hanmo {
namespace {

using ::hanmo::testing::LoadVariant;
using ::hanmo::testing::TokenizerGoldens;
using ::testing::ElementsAre;
using Ids = std::vector<uint32_t>;

std::unique_ptr<const Tokenizer> Variant(const std::string& name) {
  return LoadVariant(TokenizerGoldens()["variants"][name]);
}

// Feeds `ids` in runs of up to three and expects every piece to be whole characters.
std::string Stream(const Tokenizer& tokenizer, const Ids& ids, bool skip_special,
                   std::mt19937& draw) {
  Detokenizer detokenizer(tokenizer, skip_special);
  std::string text;
  absl::Span<const uint32_t> rest(ids);
  while (!rest.empty()) {
    const size_t size = std::min<size_t>(draw() % 4, rest.size());
    const std::string piece = detokenizer.Append(rest.first(size)).value();
    EXPECT_TRUE(IsValidUtf8(piece)) << ::testing::PrintToString(ids);
    text += piece;
    rest.remove_prefix(size);
  }
  const std::string last = detokenizer.Finish().value();
  EXPECT_TRUE(IsValidUtf8(last)) << ::testing::PrintToString(ids);
  return text + last;
}

class DetokenizerVariantTest : public ::testing::TestWithParam<const char*> {
 protected:
  const nlohmann::json& variant_ = TokenizerGoldens()["variants"][GetParam()];
  const std::unique_ptr<const Tokenizer> tokenizer_ = LoadVariant(variant_);
  std::mt19937 draw_{7};
};

TEST_P(DetokenizerVariantTest, PiecesAddUpToWhatTransformersDecodes) {
  ASSERT_GE(variant_["sequences"].size(), 100u);
  for (size_t i = 0; i < variant_["sequences"].size(); ++i) {
    for (const bool skip_special : {false, true}) {
      EXPECT_EQ(Stream(*tokenizer_, variant_["sequences"][i], skip_special, draw_),
                variant_["decoded"][i][skip_special ? 1 : 0].get<std::string>())
          << i << skip_special;
    }
  }
}

TEST_P(DetokenizerVariantTest, PiecesAddUpForTheTokensOfRealText) {
  const auto& strings = TokenizerGoldens()["strings"];
  for (size_t i = 0; i < strings.size(); i += 20) {
    const Ids ids = tokenizer_->Encode(strings[i].get<std::string>(), true).value();
    EXPECT_EQ(Stream(*tokenizer_, ids, true, draw_), tokenizer_->Decode(ids, true).value()) << i;
  }
}

TEST_P(DetokenizerVariantTest, PiecesAddUpForRandomTokens) {
  for (int round = 0; round < 1000; ++round) {
    Ids ids(draw_() % 24);
    // A few ids lie beyond the vocabulary.
    for (uint32_t& id : ids) id = draw_() % (tokenizer_->vocab_size() + 3);
    EXPECT_EQ(Stream(*tokenizer_, ids, round % 2, draw_),
              tokenizer_->Decode(ids, round % 2).value())
        << ::testing::PrintToString(ids);
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, DetokenizerVariantTest,
                         ::testing::Values("gpt2", "gpt2_listed", "modern", "fallback", "bert",
                                           "clip"),
                         [](const auto& info) { return info.param; });

// The ids of the single-byte tokens of `bytes`.
Ids ByteIds(const Tokenizer& tokenizer, const std::string& bytes) {
  Ids by_byte(256);
  for (uint32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string piece = tokenizer.Piece(id).value().bytes;
    if (piece.size() == 1) by_byte[static_cast<uint8_t>(piece[0])] = id;
  }
  Ids ids;
  for (const char byte : bytes) ids.push_back(by_byte[static_cast<uint8_t>(byte)]);
  return ids;
}

std::vector<std::string> Pieces(const Tokenizer& tokenizer, const Ids& ids) {
  Detokenizer detokenizer(tokenizer, true);
  std::vector<std::string> pieces;
  for (const uint32_t id : ids) pieces.push_back(detokenizer.Append({&id, 1}).value());
  pieces.push_back(detokenizer.Finish().value());
  return pieces;
}

TEST(DetokenizerTest, HoldsACharacterUntilItIsWhole) {
  const auto gpt2 = Variant("gpt2");
  EXPECT_THAT(Pieces(*gpt2, ByteIds(*gpt2, "a山😀b")),
              ElementsAre("a", "", "", "山", "", "", "", "😀", "b", ""));
}

TEST(DetokenizerTest, ShowsBrokenBytesAsSoonAsTheyAreCertain) {
  const auto gpt2 = Variant("gpt2");
  EXPECT_THAT(Pieces(*gpt2, ByteIds(*gpt2,
                                    "\xe5\xb1"
                                    "a\x80"
                                    "b\xf0\x9f")),
              ElementsAre("", "", "\uFFFDa", "\uFFFD", "b", "", "", "\uFFFD"));
}

TEST(DetokenizerTest, HoldsARunOfByteTokens) {
  const auto fallback = Variant("fallback");
  Ids ids;
  for (const char* token : {"▁a", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "b"}) {
    ASSERT_TRUE(fallback->TokenId(token)) << token;
    ids.push_back(*fallback->TokenId(token));
  }
  EXPECT_THAT(Pieces(*fallback, ids), ElementsAre("a", "", "", "", "", "😀b", ""));
}

TEST(DetokenizerTest, LeavesSpecialTokensOutOnlyWhenAsked) {
  const auto gpt2 = Variant("gpt2");
  const Ids ids = {*gpt2->special().eos};
  Detokenizer skipping(*gpt2, true);
  Detokenizer keeping(*gpt2, false);
  EXPECT_EQ(skipping.Append(ids).value(), "");
  EXPECT_EQ(keeping.Append(ids).value(), "<|endoftext|>");
}

}  // namespace
}  // namespace hanmo
