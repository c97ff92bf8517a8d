// What is wrong with a request is told by its field, with what the field may be.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/rpc/testing/request_plans.h"

namespace hanmo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::kNoInput;
using testing::kPaint;
using testing::Plan;
using testing::Proto;
using ::testing::SizeIs;
using testing::ViolationsOf;

struct BadField {
  std::string name;
  std::string request;  // text format, after a valid model and prompt
  std::string field;
  std::string range;
  std::string base = R"(model: "poet" prompt: "a")";
};

class BadFieldTest : public ::testing::TestWithParam<BadField> {};

TEST_P(BadFieldTest, IsNamedWithItsRange) {
  const auto plan = Plan(Proto(GetParam().base + " " + GetParam().request));
  ASSERT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument) << plan.status();
  const auto violations = ViolationsOf(plan.status());
  ASSERT_THAT(violations, SizeIs(1)) << plan.status();
  EXPECT_THAT(violations[0], ::testing::StartsWith(GetParam().field + ": "));
  EXPECT_THAT(violations[0], HasSubstr(GetParam().range));
  EXPECT_THAT(std::string(plan.status().message()), HasSubstr(GetParam().field));
}

INSTANTIATE_TEST_SUITE_P(
    Text, BadFieldTest,
    ::testing::Values(
        BadField{"MaxTokensZero", "text { max_tokens: 0 }", "text.max_tokens", "[1, 64]"},
        BadField{"MaxTokensBeyondContext", "text { max_tokens: 64 }", "text.max_tokens",
                 "must be 1 to 63 (64 less the prompt's 1), got 64"},
        BadField{"TemperatureNegative", "text { temperature: -0.1 }", "text.temperature",
                 "[0, 100]"},
        BadField{"TemperatureNan", "text { temperature: nan }", "text.temperature", "got nan"},
        BadField{"TemperatureInf", "text { temperature: inf }", "text.temperature", "got inf"},
        BadField{"TopPZero", "text { top_p: 0 }", "text.top_p", "(0, 1]"},
        BadField{"TopPAboveOne", "text { top_p: 1.01 }", "text.top_p", "(0, 1]"},
        BadField{"TopPNan", "text { top_p: nan }", "text.top_p", "(0, 1]"},
        BadField{"MinPNegative", "text { min_p: -1 }", "text.min_p", "[0, 1]"},
        BadField{"MinPAboveOne", "text { min_p: 1.5 }", "text.min_p", "[0, 1]"},
        BadField{"RepetitionTiny", "text { repetition_penalty: 1e-4 }", "text.repetition_penalty",
                 "[0.001, 10]"},
        BadField{"RepetitionInf", "text { repetition_penalty: inf }", "text.repetition_penalty",
                 "[0.001, 10]"},
        BadField{"PresenceTooLarge", "text { presence_penalty: 2.5 }", "text.presence_penalty",
                 "[-2, 2]"},
        BadField{"FrequencyTooSmall", "text { frequency_penalty: -3 }", "text.frequency_penalty",
                 "[-2, 2]"},
        BadField{"BiasValue", "text { logit_bias { key: 5 value: 101 } }", "text.logit_bias[5]",
                 "[-100, 100]"},
        BadField{"BiasNan", "text { logit_bias { key: 5 value: nan } }", "text.logit_bias[5]",
                 "got nan"},
        BadField{"BiasId", "text { logit_bias { key: 257 value: 1 } }", "text.logit_bias[257]",
                 "vocabulary size 257"},
        BadField{"StopEmpty", R"(text { stop: "a" stop: "" })", "text.stop[1]", "1 to 256 bytes"},
        BadField{"StopTokenId", "text { stop_token_ids: 300 }", "text.stop_token_ids[0]",
                 "got 300"},
        BadField{"GuideEmpty", "text { guide { } }", "text.guide", "one of json_schema, regex"},
        BadField{"GuideSource", R"(text { guide { regex: "" } })", "text.guide.regex",
                 "must be 1 to 65536 bytes, got 0"},
        BadField{"GuideRegex", R"(text { guide { regex: "(" } })", "text.guide.regex", "unclosed"},
        BadField{"GuideSchema", R"(text { guide { json_schema: "{\"not\": 1}" } })",
                 "text.guide.json_schema", "not"},
        BadField{"GuideGrammar", R"(text { guide { grammar: "a:" } })", "text.guide.grammar", ""},
        BadField{"GuideNoChoice", "text { guide { choice { } } }", "text.guide.choice.texts",
                 "1 to 1024"},
        BadField{"GuideEmptyChoice", R"(text { guide { choice { texts: "a" texts: "" } } })",
                 "text.guide.choice.texts[1]", "1 to 4096 bytes"},
        BadField{"GuideIgnoreEos", R"(text { ignore_eos: true guide { regex: "a" } })",
                 "text.ignore_eos", "must be false"},
        BadField{"NZero", "text { n: 0 }", "text.n", "[1, 16]"},
        BadField{"NTooLarge", "text { n: 4294967295 }", "text.n", "[1, 16], got 4294967295"},
        BadField{"Logprobs", "text { logprobs: 21 }", "text.logprobs", "[0, 20]"},
        BadField{"MinTokensAboveMax", "text { max_tokens: 4 min_tokens: 5 }", "text.min_tokens",
                 "[0, 4]"},
        BadField{"MinTokensBeyondRoom", "text { min_tokens: 64 }", "text.min_tokens", "0 to 63"},
        BadField{"WrongKind", "picture { }", "picture", "this model writes texts"}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Picture, BadFieldTest,
    ::testing::Values(
        BadField{"WidthNotMultiple", "picture { width: 60 }", "picture.width",
                 "multiple of 8 from 8 to 512, got 60", kPaint},
        BadField{"WidthZero", "picture { width: 0 }", "picture.width", "got 0", kPaint},
        BadField{"HeightTooLarge", "picture { height: 1024 }", "picture.height", "to 512", kPaint},
        BadField{"HeightHuge", "picture { height: 4294967288 }", "picture.height", "to 512",
                 kPaint},
        BadField{"StepsZero", "picture { steps: 0 }", "picture.steps", "[1, 1000]", kPaint},
        BadField{"StepsTooMany", "picture { steps: 1001 }", "picture.steps", "[1, 1000]", kPaint},
        BadField{"GuidanceNegative", "picture { guidance: -1 }", "picture.guidance", "[0, 100]",
                 kPaint},
        BadField{"GuidanceNan", "picture { guidance: nan }", "picture.guidance", "got nan", kPaint},
        BadField{"CountZero", "picture { count: 0 }", "picture.count", "[1, 16]", kPaint},
        BadField{"CountTooLarge", "picture { count: 17 }", "picture.count", "[1, 16]", kPaint},
        BadField{"BestOfZero", "picture { best_of: 0 }", "picture.best_of", "[1, 64]", kPaint},
        BadField{"BestOfFewerThanCount", "picture { count: 4 best_of: 3 }", "picture.best_of",
                 "[4, 64]", kPaint},
        BadField{"BestOfTooMany", "picture { best_of: 65 }", "picture.best_of", "[1, 64]", kPaint},
        BadField{"BestOfIds", "token_ids { ids: 2 } picture { best_of: 2 }", "picture.best_of",
                 "absent with token_ids", R"(model: "painter")"},
        BadField{"BestOfUnscored", "picture { best_of: 2 }", "picture.best_of", "no reranker",
                 R"(model: "unscored" prompt: "山")"},
        BadField{"Sampler", R"(picture { sampler: "heun" })", "picture.sampler",
                 "one of ddim, pndm, euler, euler_a, dpmpp_2m, lcm, unipc", kPaint},
        BadField{"QualityOfPng", "picture { quality: 80 }", "picture.quality", "absent for PNG",
                 kPaint},
        BadField{"QualityRange", "picture { format: PICTURE_FORMAT_JPEG quality: 101 }",
                 "picture.quality", "[1, 100]", kPaint},
        BadField{"Previews", "picture { preview_every_steps: 1001 }", "picture.preview_every_steps",
                 "[0, 1000]", kPaint},
        BadField{"WrongKind", "text { }", "text", "this model paints", kPaint},
        BadField{"PromptTooLong", R"(prompt: "山水山水山水山")", "prompt",
                 "at most 8 tokens for this model, got 9", R"(model: "painter")"},
        BadField{"NegativeTooLong", R"(picture { negative_prompt: "一二三一二三一" })",
                 "picture.negative_prompt", "at most 8 tokens", kPaint}),
    [](const auto& info) { return info.param.name; });

INSTANTIATE_TEST_SUITE_P(
    Input, BadFieldTest,
    ::testing::Values(
        BadField{"ModelMissing", R"(prompt: "a")", "model", "required", ""},
        BadField{"TenantCharacters", R"(tenant: "a/b")", "tenant", "[A-Za-z0-9._-]"},
        BadField{"PriorityTooHigh", R"(priority: 101)", "priority", "[-100, 100]"},
        BadField{"PriorityTooLow", R"(priority: -101)", "priority", "[-100, 100]"},
        BadField{"RequestIdCharacters", R"(request_id: "a b")", "request_id", "[A-Za-z0-9._-]"},
        BadField{"InputMissing", "", "prompt", "one of prompt, chat, parts and token_ids",
                 kNoInput},
        BadField{"PromptEmpty", R"(prompt: "")", "prompt", "not be empty", kNoInput},
        BadField{"TokenIdsEmpty", "token_ids { }", "token_ids.ids", "not be empty", kNoInput},
        BadField{"TokenIdsTooLarge", "token_ids { ids: 1 ids: 257 }", "token_ids.ids[1]",
                 "below the vocabulary size 257, got 257", kNoInput},
        BadField{"PartsEmpty", "parts { }", "parts.parts", "not be empty", kNoInput},
        BadField{"PartEmpty", "parts { parts { } }", "parts.parts[0]", "text or a picture",
                 kNoInput},
        BadField{"PartPicture", R"(parts { parts { picture { data: "x" } } })",
                 "parts.parts[0].picture", "does not read pictures", kNoInput},
        BadField{"PartsAllEmpty", R"(parts { parts { text: "" } })", "parts", "not be empty",
                 kNoInput},
        BadField{"NoTemplate", R"(chat { messages { role: "user" content: "a" } })", "chat",
                 "no chat template", kNoInput},
        BadField{"NoTokenizer", R"(prompt: "a")", "token_ids", "has no tokenizer",
                 R"(model: "bare")"},
        BadField{"GuideNoTokenizer", R"(token_ids { ids: 1 } text { guide { regex: "a" } })",
                 "text.guide", "has no tokenizer", R"(model: "bare")"},
        BadField{"StopNoTokenizer", R"(token_ids { ids: 1 } text { stop: "x" })", "text.stop",
                 "has no tokenizer", R"(model: "bare")"}),
    [](const auto& info) { return info.param.name; });

TEST(BadFieldsTest, AllViolationsAreToldTogether) {
  const auto plan = Plan(Proto(R"(model: "poet" prompt: "" request_id: "?"
      text { temperature: -1 top_p: 2 n: 99 stop: "" })"));
  EXPECT_THAT(
      ViolationsOf(plan.status()),
      ElementsAre(HasSubstr("request_id"), HasSubstr("prompt"), HasSubstr("text.temperature"),
                  HasSubstr("text.top_p"), HasSubstr("text.n"), HasSubstr("text.stop[0]")));
}

}  // namespace
}  // namespace hanmo
