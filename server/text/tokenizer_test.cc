#include "server/text/tokenizer.h"

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/text/testing/tokenizer_goldens.h"

namespace hanmo {
namespace {

using ::hanmo::testing::BlockHash;
using ::hanmo::testing::LoadVariant;
using ::hanmo::testing::TokenizerGoldens;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<uint32_t>;

// The names of the variants that have `key` recorded.
std::vector<std::string> VariantsWith(const char* key) {
  std::vector<std::string> names;
  for (const auto& [name, variant] : TokenizerGoldens()["variants"].items()) {
    if (variant.contains(key)) names.push_back(name);
  }
  return names;
}

// Every string through `convert`, compared with the recorded hash of each block.
template <typename Convert>
void ExpectBlocks(const nlohmann::json& hashes, Convert convert) {
  const auto& strings = TokenizerGoldens()["strings"];
  const size_t block = TokenizerGoldens()["block"];
  BlockHash hash;
  for (size_t i = 0; i < hashes.size(); ++i) {
    std::string shown;
    for (size_t j = i * block; j < (i + 1) * block; ++j) {
      const std::string text = strings[j];
      hash.Add(convert(text));
      shown += ::testing::PrintToString(text) + "\n";
    }
    EXPECT_EQ(hash.Take(), hashes[i].get<uint32_t>()) << "one of\n" << shown;
  }
}

class TokenizerGoldenTest : public ::testing::TestWithParam<std::string> {
 protected:
  TokenizerGoldenTest()
      : variant_(TokenizerGoldens()["variants"][GetParam()]), tokenizer_(LoadVariant(variant_)) {}

  const nlohmann::json& variant_;
  const std::unique_ptr<const Tokenizer> tokenizer_;
};

TEST_P(TokenizerGoldenTest, IdsEqualThoseOfTransformers) {
  const auto& strings = TokenizerGoldens()["strings"];
  const auto& ids = variant_["ids"];
  ASSERT_GE(ids.size(), 100u);
  for (size_t i = 0; i < ids.size(); ++i) {
    const std::string text = strings[i];
    EXPECT_EQ(tokenizer_->Encode(text, true).value(), ids[i].get<Ids>())
        << ::testing::PrintToString(text);
  }
  ExpectBlocks(variant_["hashes"],
               [&](const std::string& text) { return tokenizer_->Encode(text, true).value(); });
  ExpectBlocks(variant_["plain"],
               [&](const std::string& text) { return tokenizer_->Encode(text, false).value(); });
}

TEST_P(TokenizerGoldenTest, DecodedTextEqualsThatOfTransformers) {
  ExpectBlocks(variant_["round_trip"], [&](const std::string& text) {
    return tokenizer_->Decode(tokenizer_->Encode(text, true).value(), true).value();
  });
  const auto& sequences = variant_["sequences"];
  for (size_t i = 0; i < sequences.size(); ++i) {
    const Ids ids = sequences[i];
    for (const bool skip_special : {false, true}) {
      EXPECT_EQ(tokenizer_->Decode(ids, skip_special).value(),
                variant_["decoded"][i][skip_special ? 1 : 0].get<std::string>())
          << ::testing::PrintToString(ids) << skip_special;
    }
  }
}

class PaddedGoldenTest : public TokenizerGoldenTest {};

TEST_P(PaddedGoldenTest, PaddedIdsEqualThoseOfTransformers) {
  const size_t length = variant_["padded_length"];
  ExpectBlocks(variant_["padded"], [&](const std::string& text) {
    const PaddedIds padded = tokenizer_->EncodePadded(text, length).value();
    const size_t framed = tokenizer_->Encode(text, true).value().size();
    EXPECT_EQ(padded.truncated, framed > length) << text;
    EXPECT_EQ(padded.used, std::min(framed, length)) << text;
    return padded.ids;
  });
}

TEST_P(TokenizerGoldenTest, SpecialTokensEqualThoseOfTransformers) {
  const SpecialTokenIds& special = tokenizer_->special();
  const std::optional<uint32_t> found[] = {special.bos, special.eos, special.unk, special.sep,
                                           special.pad, special.cls, special.mask};
  for (size_t i = 0; i < std::size(found); ++i) {
    const nlohmann::json& id = variant_["special"][i];
    EXPECT_EQ(found[i], id.is_null() ? std::nullopt : std::optional<uint32_t>(id)) << i;
  }
  EXPECT_EQ(tokenizer_->vocab_size(), variant_["vocab_size"].get<size_t>());
}

constexpr auto kName = [](const ::testing::TestParamInfo<std::string>& info) { return info.param; };
INSTANTIATE_TEST_SUITE_P(Variants, TokenizerGoldenTest, ::testing::ValuesIn(VariantsWith("hashes")),
                         kName);
INSTANTIATE_TEST_SUITE_P(Variants, PaddedGoldenTest, ::testing::ValuesIn(VariantsWith("padded")),
                         kName);

TEST(TokenizerGoldensTest, AreManyStringsAndClasses) {
  EXPECT_GE(TokenizerGoldens()["strings"].size(), 10'000u);
  const size_t block = TokenizerGoldens()["block"];
  for (const char* name : {"bert", "clip", "gpt2", "modern", "fallback"}) {
    EXPECT_GE(TokenizerGoldens()["variants"][name]["hashes"].size() * block, 10'000u) << name;
  }
}

// A small BERT folder: ids are line numbers.
TokenizerFiles BertFiles() {
  TokenizerFiles files;
  files.vocab_txt = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n山\n水\nink\n##s\n";
  return files;
}

std::unique_ptr<const Tokenizer> Bert() { return Tokenizer::FromFiles(BertFiles()).value(); }

TEST(TokenizerTest, FramesPadsAndSaysWhatItUsed) {
  const PaddedIds padded = Bert()->EncodePadded("山水 Inks", 8).value();
  EXPECT_THAT(padded.ids, ElementsAre(2, 5, 6, 7, 8, 3, 0, 0));
  EXPECT_EQ(padded.used, 6u);
  EXPECT_FALSE(padded.truncated);
}

TEST(TokenizerTest, TruncationKeepsTheFrame) {
  const PaddedIds padded = Bert()->EncodePadded("山水山水", 4).value();
  EXPECT_THAT(padded.ids, ElementsAre(2, 5, 6, 3));
  EXPECT_TRUE(padded.truncated);
  EXPECT_THAT(Bert()->EncodePadded("山", 2).value().ids, ElementsAre(2, 3));
}

TEST(TokenizerTest, RefusesALengthWithoutRoomForTheFrame) {
  const absl::Status status = Bert()->EncodePadded("山", 1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("at least 2"));
}

TEST(TokenizerTest, NeedsAPadTokenToPad) {
  TokenizerFiles files;
  files.vocab_json = R"({"a": 0, "b": 1, "<|endoftext|>": 2})";
  files.merges_txt = "";
  const auto tokenizer = Tokenizer::FromFiles(files).value();
  EXPECT_EQ(tokenizer->EncodePadded("a", 3).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(tokenizer->EncodePadded("ab", 2).value().ids, ElementsAre(0, 1));
}

TEST(TokenizerTest, RefusesTextThatIsNotUtf8) {
  for (const std::string text :
       {"\xff", "a\xe5\xb1", "\xed\xa0\x80", "\xc0\xaf", "\xf5\x80\x80\x80"}) {
    const absl::Status status = Bert()->Encode(text, true).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("text"));
  }
}

TEST(TokenizerTest, RefusesTextBeyondTheLimit) {
  const std::string text(Tokenizer::kMaxTextBytes + 1, 'a');
  EXPECT_EQ(Bert()->Encode(text, true).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(TokenizerTest, EncodesTextOfNulBytes) {
  EXPECT_THAT(Bert()->Encode(std::string("\0山\0", 5), true).value(), ElementsAre(2, 5, 3));
}

TEST(TokenizerTest, LeavesUnknownIdsOut) {
  const Ids ids = {5, 4'000'000'000u, 6};
  EXPECT_EQ(Bert()->Decode(ids, false).value(), "山 水");
  EXPECT_EQ(Bert()->Piece(4'000'000'000u).value().bytes, "");
  EXPECT_EQ(Bert()->TokenId("ink"), 7u);
  EXPECT_EQ(Bert()->TokenId("absent"), std::nullopt);
}

TEST(TokenizerTest, ReadsTheLimitOfTheModel) {
  EXPECT_EQ(Bert()->model_max_length(), std::nullopt);
  TokenizerFiles files = BertFiles();
  files.tokenizer_config = R"({"model_max_length": 512})";
  EXPECT_EQ(Tokenizer::FromFiles(files).value()->model_max_length(), 512u);
  files.tokenizer_config = R"({"model_max_length": 1000000000000000019884624838656})";
  EXPECT_EQ(Tokenizer::FromFiles(files).value()->model_max_length(), std::nullopt);
}

TEST(TokenizerTest, ConcurrentEncodesAgree) {
  const auto tokenizer = LoadVariant(TokenizerGoldens()["variants"]["gpt2"]);
  const auto& variant = TokenizerGoldens()["variants"]["gpt2"];
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (size_t i = 0; i < variant["ids"].size(); ++i) {
        const std::string text = TokenizerGoldens()["strings"][i];
        EXPECT_EQ(tokenizer->Encode(text, true).value(), variant["ids"][i].get<Ids>());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST(TokenizerTest, ErrorsNameFileAndField) {
  struct Case {
    TokenizerFiles files;
    const char* message;
  };
  std::vector<Case> cases(10);
  cases[0].message = "no tokenizer.json, vocab.txt or vocab.json";
  cases[1] = {BertFiles(), "tokenizer_config.json is not JSON"};
  cases[1].files.tokenizer_config = "{";
  cases[2] = {BertFiles(), "needs a tokenizer.json"};
  cases[2].files.tokenizer_config = R"({"tokenizer_class": "T5Tokenizer"})";
  cases[3] = {BertFiles(), "cls_token must be a string"};
  cases[3].files.tokenizer_config = R"({"cls_token": 7})";
  cases[4] = {BertFiles(), "added_tokens_decoder[x]"};
  cases[4].files.tokenizer_config = R"({"added_tokens_decoder": {"x": {"content": "y"}}})";
  cases[5] = {{.vocab_txt = "a\nb\n"}, "no unk_token \"[UNK]\""};
  cases[6] = {{.vocab_json = "{}"}, "merges.txt is missing"};
  cases[7] = {{.vocab_json = R"({"a": 0})", .merges_txt = "a b c\n"}, "merge 1 is not a pair"};
  cases[8] = {{.vocab_json = R"({"a": -1})", .merges_txt = ""}, "the id of \"a\" is not a number"};
  cases[9] = {{.tokenizer_json = R"({"model": {}})"}, "tokenizer.json"};
  for (const Case& expected : cases) {
    const absl::Status status = Tokenizer::FromFiles(expected.files).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr(expected.message));
  }
}

TEST(TokenizerTest, RefusesFilesThatAreNotUtf8) {
  const absl::Status status = Tokenizer::FromFiles({.vocab_txt = "[UNK]\n\xff\n"}).status();
  EXPECT_THAT(status.message(), HasSubstr("vocab.txt is not UTF-8"));
}

TEST(TokenizerTest, LoadsAFolderAndNamesItInErrors) {
  const std::filesystem::path folder = ::testing::TempDir() + "/tokenizer_test_folder";
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  EXPECT_EQ(Tokenizer::Load(folder).status().code(), absl::StatusCode::kNotFound);
  std::ofstream(folder / "tokenizer.model") << "\n";
  EXPECT_THAT(Tokenizer::Load(folder).status().message(),
              HasSubstr("models/convert/README.md makes a tokenizer.json of tokenizer.model"));
  std::ofstream(folder / "vocab.txt") << *BertFiles().vocab_txt;
  const auto tokenizer = Tokenizer::Load(folder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT((*tokenizer)->Encode("山", true).value(), ElementsAre(2, 5, 3));

  std::ofstream(folder / "tokenizer_config.json") << "[]";
  const absl::Status status = Tokenizer::Load(folder).status();
  EXPECT_THAT(status.message(), HasSubstr(folder.string()));
  EXPECT_THAT(status.message(), HasSubstr("tokenizer_config.json must be a JSON object"));

  std::filesystem::remove(folder / "tokenizer_config.json");
  std::filesystem::create_directory(folder / "tokenizer_config.json");
  EXPECT_THAT(Tokenizer::Load(folder).status().message(), HasSubstr("not a regular file"));
}

}  // namespace
}  // namespace hanmo
