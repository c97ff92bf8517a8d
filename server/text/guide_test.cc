#include "server/text/guide.h"

#include <filesystem>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace hanmo {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr char kModel[] = "models/wenzhong-gpt2-tiny";
constexpr uint32_t kEos = 4386;

class GuideTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    tokenizer_ = Tokenizer::Load(kModel, "GPT2Tokenizer").value();
    vocabulary_ = GuideVocabulary::Create(*tokenizer_, GuideUse::kWrite).value();
  }

  static bool Allows(const GuideStep& step, uint32_t id) {
    return id / 32 < step.mask.size() && (step.mask[id / 32] >> (id % 32) & 1) != 0;
  }
  static std::vector<uint32_t> Allowed(const GuideStep& step) {
    std::vector<uint32_t> ids;
    for (uint32_t id = 0; id < step.mask.size() * 32; ++id) {
      if (Allows(step, id)) ids.push_back(id);
    }
    return ids;
  }
  // Whether the tokens of `text` follow the guide, to an end.
  static bool Matches(const std::string& guide, const std::string& text) {
    GuideMatcher matcher = vocabulary_->Match(guide).value();
    const std::vector<uint32_t> ids = tokenizer_->Encode(text, false).value();
    for (const uint32_t id : ids) {
      const GuideStep step = matcher.Next().value();
      if (!Allows(step, id)) return false;
      EXPECT_TRUE(matcher.Consume({&id, 1}).ok());
    }
    return matcher.Next()->may_end;
  }
  // Draws tokens until the text must end, or may and the die says so.
  static std::string Draw(const std::string& guide, uint32_t seed) {
    std::mt19937 draw(seed);
    GuideMatcher matcher = vocabulary_->Match(guide).value();
    std::vector<uint32_t> ids;
    for (;;) {
      const GuideStep step = matcher.Next().value();
      if (!step.goes_on || (step.may_end && draw() % 4 == 0)) {
        EXPECT_TRUE(step.may_end);
        return tokenizer_->Decode(ids, true).value();
      }
      const std::vector<uint32_t> allowed = Allowed(step);
      ids.push_back(allowed[draw() % allowed.size()]);
      EXPECT_TRUE(matcher.Consume({&ids.back(), 1}).ok());
    }
  }
  static std::string Refusal(const std::string& guide) {
    const auto matcher = vocabulary_->Match(guide);
    EXPECT_EQ(matcher.status().code(), absl::StatusCode::kInvalidArgument) << guide;
    return std::string(matcher.status().message());
  }

  static std::unique_ptr<const Tokenizer> tokenizer_;
  static std::unique_ptr<const GuideVocabulary> vocabulary_;
};

std::unique_ptr<const Tokenizer> GuideTest::tokenizer_;
std::unique_ptr<const GuideVocabulary> GuideTest::vocabulary_;

TEST_F(GuideTest, ATextMayEndExactlyWhereItMatches) {
  const std::string regex = RegexGuide("[0-9]{2,3}|山水");
  EXPECT_TRUE(Matches(regex, "12"));
  EXPECT_TRUE(Matches(regex, "123"));
  EXPECT_TRUE(Matches(regex, "山水"));
  EXPECT_FALSE(Matches(regex, "1"));
  EXPECT_FALSE(Matches(regex, "1234"));
  EXPECT_FALSE(Matches(regex, "山"));
  EXPECT_FALSE(Matches(regex, " 12"));

  const std::string schema = JsonSchemaGuide(
      R"({"type": "object", "properties": {"名": {"type": "string"}, "n": {"type": "integer"}},
          "required": ["名"], "additionalProperties": false})");
  EXPECT_TRUE(Matches(schema, R"({"名":"李白"})"));
  EXPECT_TRUE(Matches(schema, R"({"名": "李白", "n": -7})"));
  EXPECT_FALSE(Matches(schema, R"({"n":1})"));
  EXPECT_FALSE(Matches(schema, R"({"名":1})"));
  EXPECT_FALSE(Matches(schema, R"({"名":"李白")"));

  const std::string lark = LarkGuide("start: \"(\" start \")\" | \"a\"");
  EXPECT_TRUE(Matches(lark, "((a))"));
  EXPECT_FALSE(Matches(lark, "((a)"));
}

TEST_F(GuideTest, EveryDrawnTextMatches) {
  for (uint32_t seed = 0; seed < 50; ++seed) {
    const std::string number = Draw(RegexGuide("-?[1-9][0-9]{0,5}"), seed);
    EXPECT_NE(std::stol(number), 0) << number;
    const auto json = nlohmann::json::parse(
        Draw(JsonSchemaGuide(
                 R"({"type": "array", "items": {"enum": ["山", 3, null, {"a": [true]}]},
                     "minItems": 2, "maxItems": 3})"),
             seed),
        nullptr, false);
    ASSERT_TRUE(json.is_array());
    EXPECT_GE(json.size(), 2u);
    EXPECT_LE(json.size(), 3u);
  }
}

TEST_F(GuideTest, AChoiceIsAnyText) {
  const std::vector<std::string> choices = {"山\n水", R"(a"b\c/)", "tab\tbell\x07", "山", "$(x)|"};
  const std::string guide = ChoiceGuide(choices);
  for (const std::string& choice : choices) EXPECT_TRUE(Matches(guide, choice)) << choice;
  EXPECT_FALSE(Matches(guide, "山\n"));
  for (uint32_t seed = 0; seed < 20; ++seed) {
    EXPECT_THAT(choices, ::testing::Contains(Draw(guide, seed)));
  }
}

TEST_F(GuideTest, SpecialTokensAreNoText) {
  GuideMatcher matcher = vocabulary_->Match(RegexGuide("(.|\\n)*")).value();
  const GuideStep step = matcher.Next().value();
  EXPECT_TRUE(step.may_end);
  EXPECT_FALSE(Allows(step, kEos));
  EXPECT_GT(Allowed(step).size(), 4000u);
}

TEST_F(GuideTest, WhiteSpaceOfJsonIsBounded) {
  const std::string guide = JsonSchemaGuide(R"({"type": "array", "items": {"const": 1}})");
  EXPECT_TRUE(Matches(guide, "[1, 1]"));
  EXPECT_TRUE(Matches(guide, "[\n  1,\n  1\n]"));
  EXPECT_FALSE(Matches(guide, "[  1]"));
  EXPECT_FALSE(Matches(guide, "[\n\n1]"));
}

TEST_F(GuideTest, RefusesWhatItCannotKeep) {
  EXPECT_THAT(Refusal(JsonSchemaGuide("{")), HasSubstr("not JSON"));
  EXPECT_THAT(Refusal(JsonSchemaGuide("[]")), HasSubstr("JSON object"));
  EXPECT_THAT(Refusal(JsonSchemaGuide(R"({"not": {}})")), HasSubstr("not"));
  EXPECT_THAT(Refusal(JsonSchemaGuide(R"({"type": "array", "uniqueItems": true})")),
              HasSubstr("uniqueItems"));
  EXPECT_THAT(Refusal(JsonSchemaGuide(R"({"oneOf": [{"type": "number"}, {"type": "integer"}]})")),
              HasSubstr("oneOf"));
  EXPECT_THAT(Refusal(JsonSchemaGuide(R"({"$ref": "http://127.0.0.1/x"})")), HasSubstr("$ref"));
  EXPECT_THAT(Refusal(RegexGuide("(")), HasSubstr("unclosed"));
  EXPECT_FALSE(Refusal(RegexGuide("(?=a)b")).empty());
  EXPECT_FALSE(Refusal(RegexGuide("(a)\\1")).empty());
  EXPECT_FALSE(Refusal(LarkGuide("begin: \"a\"")).empty());
  EXPECT_FALSE(Refusal(LarkGuide("start: nothing")).empty());
  EXPECT_FALSE(Refusal("xml:<a/>").empty());
  EXPECT_FALSE(Refusal("").empty());
  EXPECT_THAT(Refusal(RegexGuide(std::string(4097, 'a'))), HasSubstr("4096 bytes, got 4097"));
  EXPECT_THAT(Refusal(LarkGuide(std::string(16385, 'a'))), HasSubstr("16384"));
  EXPECT_THAT(Refusal(JsonSchemaGuide(std::string(65537, ' '))), HasSubstr("65536"));
  const std::string pattern(1025, 'a');
  EXPECT_THAT(
      Refusal(JsonSchemaGuide(absl::StrCat(R"({"items": [{"pattern": ")", pattern, "\"}]}"))),
      HasSubstr("pattern: must be at most 1024 bytes"));
  EXPECT_THAT(
      Refusal(JsonSchemaGuide(absl::StrCat(R"({"patternProperties": {")", pattern, "\": {}}}"))),
      HasSubstr("patternProperties: must be"));
  EXPECT_FALSE(Refusal("choice:[1]").empty());
}

TEST_F(GuideTest, AWrongTokenIsAnErrorForGood) {
  GuideMatcher matcher = vocabulary_->Match(RegexGuide("ab")).value();
  const uint32_t wrong = tokenizer_->TokenId("z").value();
  EXPECT_FALSE(matcher.Consume({&wrong, 1}).ok());
  EXPECT_FALSE(matcher.Next().ok());
  GuideMatcher other = vocabulary_->Match(RegexGuide("ab")).value();
  const uint32_t beyond = 1u << 30;
  EXPECT_FALSE(other.Consume({&beyond, 1}).ok());
}

// Deep, wide, ambiguous: each is refused or goes on, in bounded time and without an end of the
// process.
TEST_F(GuideTest, HostileGuidesAreBounded) {
  const auto repeat = [](const std::string& text, size_t times) {
    std::string all;
    for (size_t i = 0; i < times; ++i) all += text;
    return all;
  };
  std::string chain = "start: r0\n", terminals = "start: A0\n";
  for (int i = 0; i < 1000; ++i) {
    absl::StrAppend(&chain, "r", i, ": r", i + 1, "\n");
    absl::StrAppend(&terminals, "A", i, ": A", i + 1, "\n");
  }
  std::string doubling = "start: A0\n";
  for (int i = 0; i < 40; ++i) absl::StrAppend(&doubling, "A", i, ": A", i + 1, " A", i + 1, "\n");
  const std::vector<std::string> guides = {
      RegexGuide("(((a{1000}){1000}){1000}){1000}"),
      RegexGuide("(a|b)*a(a|b){5000}"),
      RegexGuide("(x+x+)+y"),
      RegexGuide("\\p{L}{10000}"),
      RegexGuide(repeat("(", 4000)),
      RegexGuide(repeat("(", 200) + "a" + repeat(")*", 200)),
      RegexGuide(repeat("(?i:山)?", 400)),
      RegexGuide(repeat("a?", 2000)),
      LarkGuide("start: A\nA: " + repeat("\"a\"? ", 3000)),
      RegexGuide("[a-z]{1,60000}"),
      LarkGuide("start: " + repeat("(", 8000) + "\"a\"" + repeat(")", 8000)),
      LarkGuide("start: " + repeat("[", 29) + "\"a\"" + repeat("]", 29)),
      LarkGuide("start: start start | \"a\" |"),
      LarkGuide("start: start"),
      LarkGuide("start: a\na: b\nb: a"),
      LarkGuide("start: (\"a\" | \"b\"){0,1000000}"),
      LarkGuide("start: (" + repeat("\"a\"? ", 3000) + "){3000}"),
      LarkGuide(chain + "r1000: \"a\"\n"),
      LarkGuide(terminals + "A1000: \"a\"\n"),
      LarkGuide(doubling + "A40: \"a\"\n"),
      JsonSchemaGuide(repeat("{\"items\":", 100) + "{}" + repeat("}", 100)),
      JsonSchemaGuide(repeat("{\"items\":", 5000) + "{}" + repeat("}", 5000)),
      JsonSchemaGuide(R"({"$ref": "#"})"),
      JsonSchemaGuide(R"({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})"),
      JsonSchemaGuide(R"({"allOf": [{"$ref": "#"}]})"),
      JsonSchemaGuide(R"({"type": "array", "minItems": 1000000, "items": {"type": "array",
                          "minItems": 1000000}})"),
      JsonSchemaGuide(R"({"type": "string", "minLength": 100000000})"),
      JsonSchemaGuide(R"({"type": "string", "pattern": "(a|b)*a(a|b){3000}$"})"),
      JsonSchemaGuide(R"({"multipleOf": 1e-300, "minimum": -1e308, "maximum": 1e308})"),
      JsonSchemaGuide(R"({"multipleOf": 999999937, "type": "integer"})"),
      JsonSchemaGuide(R"({"type": "integer", "minimum": 1e308})"),
      JsonSchemaGuide(absl::StrCat(R"({"enum": ["x")", repeat(R"(,"y")", 15000), "]}")),
      JsonSchemaGuide(
          absl::StrCat(R"({"properties": {"a": {})", repeat(R"(,"a": {"minLength": 3})", 3000),
                       "}, \"patternProperties\": {\"(a|b)*a(a|b){20}\": {}, \"b\": {}}}")),
  };
  for (const std::string& guide : guides) {
    const absl::Time start = absl::Now();
    auto matcher = vocabulary_->Match(guide);
    std::mt19937 draw(1);
    for (int token = 0; matcher.ok() && token < 40; ++token) {
      const auto step = matcher->Next();
      if (!step.ok() || !step->goes_on) break;
      const std::vector<uint32_t> allowed = Allowed(*step);
      const uint32_t id = allowed[draw() % allowed.size()];
      if (!matcher->Consume({&id, 1}).ok()) break;
    }
    const absl::Duration took = absl::Now() - start;
    // Generous: for busy machines.
    EXPECT_LT(took, absl::Seconds(10)) << guide.substr(0, 60);
  }
}

TEST_F(GuideTest, ThreadsShareAVocabulary) {
  const std::string guide = JsonSchemaGuide(R"({"type": "array", "items": {"type": "boolean"},
                                                "maxItems": 4})");
  std::vector<std::string> texts(16);
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < texts.size(); ++i) {
    threads.emplace_back([&, i] { texts[i] = Draw(guide, i); });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint32_t i = 0; i < texts.size(); ++i) EXPECT_EQ(texts[i], Draw(guide, i));
}

TEST(GuideVocabularyTest, KnowsSentencePieceTokens) {
  TokenizerFiles files;
  files.tokenizer_json =
      R"({"version":"1.0","added_tokens":[{"id":0,"content":"</s>","single_word":false,"lstrip":false,
          "rstrip":false,"normalized":false,"special":true}],"normalizer":null,"pre_tokenizer":null,
          "post_processor":null,"decoder":{"type":"Sequence","decoders":[{"type":"Replace","pattern":
          {"String":"\u2581"},"content":" "},{"type":"ByteFallback"},{"type":"Fuse"}]},"model":{"type":
          "BPE","vocab":{"</s>":0,"a":1,"\u2581a":2,"<0xE5>":3,"<0xB1>":4,"<0xB1":5},"merges":[],
          "byte_fallback":true}})";
  const auto tokenizer = Tokenizer::FromFiles(files).value();
  const auto vocabulary = GuideVocabulary::Create(*tokenizer, GuideUse::kWrite).value();
  GuideMatcher matcher = vocabulary->Match(RegexGuide("a a山")).value();
  for (const uint32_t id : {1, 2, 3, 4, 4}) {
    EXPECT_EQ(matcher.Next()->mask, std::vector<uint32_t>{1u << id});
    ASSERT_TRUE(matcher.Consume({&id, 1}).ok());
  }
  EXPECT_TRUE(matcher.Next()->may_end);
  EXPECT_EQ(tokenizer->Decode(std::vector<uint32_t>{1, 2, 3, 4, 4}, true).value(), "a a山");
}

TEST_F(GuideTest, WhatChecksGuidesSeesWhatWritesByThem) {
  const auto checks = GuideVocabulary::Create(*tokenizer_, GuideUse::kCheck).value();
  for (const std::string& guide :
       {JsonSchemaGuide(R"({"type": "object", "properties": {"名": {"type": "string"},
                            "n": {"type": "string", "maxLength": 20}}, "required": ["名", "n"]})"),
        RegexGuide("(?s:.*)山"), LarkGuide("start: \"a\"+ \"b\"*"),
        ChoiceGuide({"五言绝句", "七言"})}) {
    std::mt19937 draw(1);
    GuideMatcher one = vocabulary_->Match(guide).value(), other = checks->Match(guide).value();
    for (int i = 0; i < 40; ++i) {
      const GuideStep step = one.Next().value();
      const GuideStep same = other.Next().value();
      ASSERT_EQ(step.mask, same.mask) << guide;
      ASSERT_EQ(step.may_end, same.may_end) << guide;
      if (!step.goes_on) break;
      const std::vector<uint32_t> allowed = Allowed(step);
      const uint32_t id = allowed[draw() % allowed.size()];
      ASSERT_TRUE(one.Consume({&id, 1}).ok() && other.Consume({&id, 1}).ok());
    }
  }
  EXPECT_EQ(checks->Match(RegexGuide("(")).status(), vocabulary_->Match(RegexGuide("(")).status());
}

TEST(GuideVocabularyTest, RefusesIdsThatNoTableHolds) {
  TokenizerFiles files;
  files.vocab_json = R"({"a": 0, "b": 4194304})";
  files.merges_txt = "";
  files.class_hint = "GPT2Tokenizer";
  const auto tokenizer = Tokenizer::FromFiles(files).value();
  const absl::Status status = GuideVocabulary::Create(*tokenizer, GuideUse::kCheck).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("must be below 4194304"));
}

TEST(GuideVocabularyTest, IsMadeBeforeAGuideAsks) {
  absl::Notification begun;
  const BackgroundGuideVocabulary vocabulary([&] {
    begun.Notify();
    return absl::StatusOr<std::unique_ptr<const GuideVocabulary>>(absl::UnavailableError("none"));
  });
  begun.WaitForNotification();
  EXPECT_EQ(vocabulary.Match(RegexGuide("a")).status().code(), absl::StatusCode::kUnavailable);
}

TEST(GuideVocabularyTest, NeedsTokensThatAreBytes) {
  const auto words = Tokenizer::Load("models/taiyi-sd-tiny/tokenizer").value();
  const auto make = [&] { return GuideVocabulary::Create(*words, GuideUse::kCheck); };
  EXPECT_EQ(make().status().code(), absl::StatusCode::kFailedPrecondition);
  const BackgroundGuideVocabulary vocabulary(make);
  EXPECT_EQ(vocabulary.Match(RegexGuide("a")).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace hanmo
