#include "server/rpc/request_from_proto.h"

#include <cmath>
#include <functional>
#include <limits>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/rpc/testing/request_plans.h"

namespace hanmo {
namespace {

using hanmo::v1::GenerateRequest;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::kNoInput;
using testing::kPaint;
using testing::Models;
using testing::Plan;
using testing::Proto;
using ::testing::SizeIs;
using testing::ViolationsOf;

TEST(RequestFromProtoTest, AGuideIsOneStringForAllSamples) {
  const auto guide = [](const std::string& fields) {
    const auto plan =
        Plan(Proto(R"(model: "poet" prompt: "a" text { n: 2 guide { )" + fields + "} }"));
    EXPECT_TRUE(plan.ok()) << plan.status();
    const auto& samples = plan->request.samples;
    EXPECT_EQ(std::get<TextJob>(samples[0]).guide, std::get<TextJob>(samples[1]).guide);
    return *std::get<TextJob>(samples[0]).guide;
  };
  EXPECT_EQ(guide(R"(json_schema: "{}")"), "json_schema:{}");
  EXPECT_EQ(guide(R"(regex: "a|b")"), "regex:a|b");
  EXPECT_EQ(guide(R"(grammar: "start: \"a\"")"), "lark:start: \"a\"");
  EXPECT_EQ(guide(R"(choice { texts: "a" texts: "\"" })"), R"(choice:["a","\""])");
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
      max_tokens: 7 temperature: 0.5 top_k: 4 top_p: 0.25 min_p: 0.125 repetition_penalty: 0.001
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
  EXPECT_EQ(job.sampling.repetition_penalty, 0.001f);
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
