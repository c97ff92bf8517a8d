#include "server/rpc/request_from_proto.h"

#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "server/rpc/testing/test_models.h"
#include "server/rpc/violations.h"

namespace hanmo {
namespace {

using hanmo::v1::GenerateRequest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

const ModelTable& Models() {
  static const ModelTable& models = *[] {
    std::vector<Model> list;
    list.push_back(testing::ByteModel(0, "poet"));
    list.push_back(testing::Painter(1, "painter"));
    list.push_back(testing::BrokenModel(2, "broken"));
    list.push_back(testing::BareModel(3, "bare"));
    list.push_back(testing::Painter(4, "unscored"));
    list.back().spec.picture.reranker_tokens = 0;
    return new ModelTable(std::move(list));
  }();
  return models;
}

GenerateRequest Proto(const std::string& text) {
  GenerateRequest proto;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &proto)) << text;
  return proto;
}

absl::StatusOr<GenerationPlan> Plan(const GenerateRequest& proto) {
  auto plan = PlanFromProto(proto, Models());
  if (!plan.ok()) return plan;
  if (auto status = SetPrompts(proto, &*plan); !status.ok()) return status;
  return plan;
}

// "field: description" of each violation in the details.
std::vector<std::string> ViolationsOf(const absl::Status& status) {
  std::vector<std::string> list;
  google::rpc::BadRequest details;
  const auto payload = status.GetPayload(kBadRequestUrl);
  if (!payload || !details.ParseFromString(std::string(*payload))) return list;
  for (const auto& violation : details.field_violations()) {
    list.push_back(absl::StrCat(violation.field(), ": ", violation.description()));
  }
  return list;
}

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

constexpr char kPaint[] = R"(model: "painter" prompt: "山")";
constexpr char kNoInput[] = R"(model: "poet")";

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
        BadField{"RepetitionZero", "text { repetition_penalty: 0 }", "text.repetition_penalty",
                 "(0, 10]"},
        BadField{"RepetitionInf", "text { repetition_penalty: inf }", "text.repetition_penalty",
                 "(0, 10]"},
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
        BadField{"StopNoTokenizer", R"(token_ids { ids: 1 } text { stop: "x" })", "text.stop",
                 "has no tokenizer", R"(model: "bare")"}),
    [](const auto& info) { return info.param.name; });

TEST(RequestFromProtoTest, AllViolationsAreToldTogether) {
  const auto plan = Plan(Proto(R"(model: "poet" prompt: "" request_id: "?"
      text { temperature: -1 top_p: 2 n: 99 stop: "" })"));
  EXPECT_THAT(
      ViolationsOf(plan.status()),
      ElementsAre(HasSubstr("request_id"), HasSubstr("prompt"), HasSubstr("text.temperature"),
                  HasSubstr("text.top_p"), HasSubstr("text.n"), HasSubstr("text.stop[0]")));
}

TEST(RequestFromProtoTest, SizesAreBounded) {
  GenerateRequest proto = Proto(kNoInput);
  proto.set_prompt(std::string(kMaxTextBytes + 1, 'a'));
  EXPECT_THAT(ViolationsOf(Plan(proto).status()), ElementsAre(HasSubstr("at most 1048576 bytes")));
  proto.set_prompt(std::string(70, 'a'));
  EXPECT_THAT(ViolationsOf(Plan(proto).status()),
              ElementsAre(HasSubstr("prompt: must be at most 63 tokens for this model, got 70")));
  proto.set_prompt("a");
  for (int i = 0; i < 17; ++i) proto.mutable_text()->add_stop("x");
  EXPECT_THAT(ViolationsOf(Plan(proto).status()), ElementsAre(HasSubstr("at most 16 strings")));
  proto.mutable_text()->clear_stop();
  proto.mutable_text()->add_stop(std::string(257, 'x'));
  EXPECT_THAT(ViolationsOf(Plan(proto).status()), ElementsAre(HasSubstr("1 to 256 bytes")));
  proto.mutable_text()->clear_stop();
  for (int i = 0; i < 65; ++i) proto.mutable_text()->add_stop_token_ids(1);
  EXPECT_THAT(ViolationsOf(Plan(proto).status()), ElementsAre(HasSubstr("at most 64")));
  proto.mutable_text()->clear_stop_token_ids();
  proto.set_request_id(std::string(129, 'x'));
  EXPECT_THAT(ViolationsOf(Plan(proto).status()), ElementsAre(HasSubstr("at most 128")));
}

TEST(RequestFromProtoTest, UnknownAndFailedModels) {
  EXPECT_EQ(Plan(Proto(R"(model: "nobody" prompt: "a")")).status().code(),
            absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(Plan(Proto(R"(model: "nobody" prompt: "a")")).status().message()),
              HasSubstr("\"nobody\""));
  // A name that no model can have is not repeated.
  EXPECT_EQ(std::string(Plan(Proto(R"(model: "../etc" prompt: "a")")).status().message()),
            "model: there is no such model");
  const auto failed = Plan(Proto(R"(model: "broken" prompt: "a")")).status();
  EXPECT_EQ(failed.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(failed.message()), HasSubstr("lacks n_positions"));
}

TEST(RequestFromProtoTest, TextDefaultsComeFromTheModel) {
  auto plan = Plan(Proto(R"(model: "poet" prompt: "ab")"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_THAT(plan->request.samples, SizeIs(1));
  const auto& job = std::get<TextJob>(plan->request.samples[0]);
  EXPECT_THAT(job.prompt, ElementsAre('a', 'b'));
  EXPECT_EQ(job.max_tokens, 16u);
  EXPECT_EQ(job.sampling.temperature, 1);
  EXPECT_THAT(job.stop_token_ids, ElementsAre(256));
  EXPECT_THAT(job.sampling.eos_token_ids, ElementsAre(256));
  EXPECT_FALSE(job.sampling.logprobs.has_value());
  EXPECT_TRUE(IsRequestId(plan->request_id));
}

TEST(RequestFromProtoTest, EveryTextFieldArrives) {
  auto plan = Plan(Proto(R"(model: "poet" prompt: "ab" request_id: "r-1" text {
      max_tokens: 7 temperature: 0.5 top_k: 4 top_p: 0.25 min_p: 0.125 repetition_penalty: 1.5
      presence_penalty: 0.5 frequency_penalty: -0.5 logit_bias { key: 3 value: 2 }
      stop: "x" stop_token_ids: 9 include_stop: true seed: 18446744073709551615 n: 3 logprobs: 2
      ignore_eos: true min_tokens: 2 })"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->request_id, "r-1");
  EXPECT_TRUE(plan->logprobs);
  EXPECT_TRUE(plan->include_stop);
  EXPECT_THAT(plan->stop, ElementsAre("x"));
  ASSERT_THAT(plan->request.samples, SizeIs(3));
  const auto& job = std::get<TextJob>(plan->request.samples[2]);
  EXPECT_THAT(job.prompt, ElementsAre('a', 'b'));
  EXPECT_EQ(job.max_tokens, 7u);
  EXPECT_EQ(job.sampling.temperature, 0.5f);
  EXPECT_EQ(job.sampling.top_k, 4u);
  EXPECT_EQ(job.sampling.top_p, 0.25f);
  EXPECT_EQ(job.sampling.min_p, 0.125f);
  EXPECT_EQ(job.sampling.repetition_penalty, 1.5f);
  EXPECT_EQ(job.sampling.presence_penalty, 0.5f);
  EXPECT_EQ(job.sampling.frequency_penalty, -0.5f);
  EXPECT_EQ(job.sampling.logit_bias.at(3), 2);
  EXPECT_EQ(job.sampling.seed, 1u);  // 2^64 - 1 + 2 wraps
  EXPECT_EQ(job.sampling.min_tokens, 2u);
  EXPECT_EQ(job.sampling.logprobs, 2u);
  // ignore_eos leaves only the request's own stops.
  EXPECT_THAT(job.stop_token_ids, ElementsAre(9));
}

TEST(RequestFromProtoTest, GreedyIsTemperatureZeroNotTheDefault) {
  auto plan = Plan(Proto(R"(model: "poet" prompt: "a" text { temperature: 0 })"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(std::get<TextJob>(plan->request.samples[0]).sampling.temperature, 0);
}

TEST(RequestFromProtoTest, TheDefaultLengthShrinksToTheRoom) {
  GenerateRequest proto = Proto(kNoInput);
  proto.set_prompt(std::string(60, 'a'));
  auto plan = Plan(proto);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(std::get<TextJob>(plan->request.samples[0]).max_tokens, 4u);
}

TEST(RequestFromProtoTest, PictureDefaultsAndFields) {
  auto plan = Plan(Proto(kPaint));
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto& job = std::get<PictureJob>(plan->request.samples[0]);
  EXPECT_THAT(job.prompt, ElementsAre(2, 5, 3, 0, 0, 0, 0, 0));
  EXPECT_THAT(job.negative_prompt, ElementsAre(2, 3, 0, 0, 0, 0, 0, 0));
  EXPECT_EQ(job.width, 64u);
  EXPECT_EQ(job.steps, 50u);
  EXPECT_EQ(job.guidance, 7.5f);
  EXPECT_EQ(job.sampler, "pndm");
  EXPECT_EQ(plan->format, hanmo::v1::PICTURE_FORMAT_PNG);

  plan = Plan(Proto(std::string(kPaint) + R"( picture { negative_prompt: "水" width: 128 height: 96
      steps: 4 guidance: 1 seed: 5 count: 2 sampler: "ddim" format: PICTURE_FORMAT_WEBP quality: 70
      preview_every_steps: 3 })"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  const auto& second = std::get<PictureJob>(plan->request.samples[1]);
  EXPECT_EQ(second.width, 128u);
  EXPECT_EQ(second.height, 96u);
  EXPECT_EQ(second.steps, 4u);
  EXPECT_EQ(second.seed, 6u);
  EXPECT_EQ(second.sampler, "ddim");
  EXPECT_EQ(second.preview_every_steps, 3u);
  EXPECT_THAT(second.negative_prompt, ::testing::IsEmpty());  // guidance 1 runs without it
  EXPECT_EQ(plan->encode.encoding, PictureEncoding::kWebp);
  EXPECT_EQ(plan->encode.quality, 70u);
}

TEST(RequestFromProtoTest, CandidatesAreScoredAgainstTheWords) {
  auto plan = Plan(Proto(R"(model: "painter" prompt: "山水" picture {
      seed: 18446744073709551615 count: 2 best_of: 64 })"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->chosen, 2u);
  ASSERT_THAT(plan->request.samples, SizeIs(64));
  const auto& last = std::get<PictureJob>(plan->request.samples[63]);
  EXPECT_EQ(last.seed, 62u);
  EXPECT_THAT(last.score_prompt, ElementsAre(2, 5, 6, 3)) << "framed, not padded";

  plan = Plan(Proto(R"(model: "painter" prompt: "一二三一二三" picture { best_of: 1 })"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(std::get<PictureJob>(plan->request.samples[0]).score_prompt,
              ElementsAre(2, 7, 8, 9, 7, 3))
      << "cut where the reranker reads no further";

  plan = Plan(Proto(R"(model: "painter" prompt: "山水" picture { count: 2 })"));
  EXPECT_EQ(plan->chosen, 0u);
  EXPECT_THAT(std::get<PictureJob>(plan->request.samples[0]).score_prompt, ::testing::IsEmpty());
}

TEST(RequestFromProtoTest, TokenIdsOfAPictureArePadded) {
  auto plan = Plan(Proto(R"(model: "painter" token_ids { ids: 2 ids: 6 ids: 3 })"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(std::get<PictureJob>(plan->request.samples[0]).prompt,
              ElementsAre(2, 6, 3, 0, 0, 0, 0, 0));
}

TEST(RequestFromProtoTest, PartsOfTextAreJoined) {
  auto plan = Plan(Proto(R"(model: "poet" parts { parts { text: "a" } parts { text: "b" } })"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(std::get<TextJob>(plan->request.samples[0]).prompt, ElementsAre('a', 'b'));
}

TEST(RequestFromProtoTest, DrawnSeedsAndIdsDiffer) {
  std::set<uint64_t> seeds;
  std::set<std::string> ids;
  for (int i = 0; i < 50; ++i) {
    auto plan = Plan(Proto(R"(model: "poet" prompt: "a")"));
    seeds.insert(std::get<TextJob>(plan->request.samples[0]).sampling.seed);
    ids.insert(plan->request_id);
  }
  EXPECT_THAT(seeds, SizeIs(50));
  EXPECT_THAT(ids, SizeIs(50));
}

TEST(RequestFromProtoTest, ErrorsNeverQuoteThePrompt) {
  GenerateRequest proto = Proto(kNoInput);
  proto.set_prompt("secretsecretsecretsecretsecretsecretsecretsecretsecretsecretsecretsecret");
  proto.mutable_text()->add_stop("");
  EXPECT_EQ(Plan(proto).status().ToString().find("secret"), std::string::npos);
  proto.mutable_text()->clear_stop();
  EXPECT_EQ(Plan(proto).status().ToString().find("secret"), std::string::npos);
}

}  // namespace
}  // namespace hanmo
