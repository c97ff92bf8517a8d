#include "server/worker_link/wire.h"

#include <gtest/gtest.h>

#include <string>

namespace hanmo {
namespace {

TextJob Text() {
  TextJob job;
  job.prompt = {5, 6, 70000};
  job.sampling.temperature = 0.7f;
  job.sampling.top_k = 40;
  job.sampling.top_p = 0.9f;
  job.sampling.min_p = 0.05f;
  job.sampling.repetition_penalty = 1.1f;
  job.sampling.presence_penalty = -0.5f;
  job.sampling.frequency_penalty = 0.25f;
  job.sampling.logit_bias = {{3, -100.0f}, {9, 2.5f}};
  job.sampling.seed = ~uint64_t{0};
  job.sampling.min_tokens = 4;
  job.sampling.logprobs = 0;
  job.sampling.eos_token_ids = {2};
  job.stop_token_ids = {2, 11};
  job.max_tokens = 32;
  job.score_prompt = {101, 8, 102};
  return job;
}

TEST(WireTest, CarriesEveryFieldOfAText) {
  wire::Begin message;
  ToWire(BeginCommand{7, 3, Text(), Resume{{8, 9}, "", 4}}, &message);
  absl::StatusOr<BeginCommand> begin = FromWire(message);
  ASSERT_TRUE(begin.ok());
  EXPECT_EQ(begin->sample, 7u);
  EXPECT_EQ(begin->model, 3u);
  EXPECT_EQ(begin->resume.emitted, (std::vector<uint32_t>{8, 9}));
  EXPECT_EQ(begin->resume.cached_tokens, 4u);
  const TextJob want = Text();
  const TextJob& got = std::get<TextJob>(begin->job);
  EXPECT_EQ(got.prompt, want.prompt);
  EXPECT_EQ(got.stop_token_ids, want.stop_token_ids);
  EXPECT_EQ(got.max_tokens, want.max_tokens);
  EXPECT_EQ(got.score_prompt, want.score_prompt);
  EXPECT_EQ(got.sampling.temperature, want.sampling.temperature);
  EXPECT_EQ(got.sampling.top_k, want.sampling.top_k);
  EXPECT_EQ(got.sampling.top_p, want.sampling.top_p);
  EXPECT_EQ(got.sampling.min_p, want.sampling.min_p);
  EXPECT_EQ(got.sampling.repetition_penalty, want.sampling.repetition_penalty);
  EXPECT_EQ(got.sampling.presence_penalty, want.sampling.presence_penalty);
  EXPECT_EQ(got.sampling.frequency_penalty, want.sampling.frequency_penalty);
  EXPECT_EQ(got.sampling.logit_bias, want.sampling.logit_bias);
  EXPECT_EQ(got.sampling.seed, want.sampling.seed);
  EXPECT_EQ(got.sampling.min_tokens, want.sampling.min_tokens);
  EXPECT_EQ(got.sampling.logprobs, want.sampling.logprobs);
  EXPECT_EQ(got.sampling.eos_token_ids, want.sampling.eos_token_ids);
  EXPECT_EQ(got.source_tokens, 0u);
  EXPECT_EQ(got.picture.rgb, nullptr);
  EXPECT_FALSE(got.paints());
}

TEST(WireTest, CarriesTheSourceOfAText) {
  TextJob job = Text();
  job.source_tokens = 3;
  job.picture = {2, 1, std::make_shared<const std::string>("RGBrgb")};
  job.paint_width = 16;
  job.paint_height = 24;
  wire::Begin message;
  ToWire(BeginCommand{7, 3, job, {}}, &message);
  const TextJob got = std::get<TextJob>(FromWire(message)->job);
  EXPECT_EQ(got.source_tokens, 3u);
  EXPECT_EQ(got.picture.width, 2u);
  EXPECT_EQ(got.picture.height, 1u);
  ASSERT_NE(got.picture.rgb, nullptr);
  EXPECT_EQ(*got.picture.rgb, "RGBrgb");
  EXPECT_EQ(got.paint_width, 16u);
  EXPECT_EQ(got.paint_height, 24u);
}

TEST(WireTest, KeepsAbsentLogprobsApartFromZero) {
  TextJob job = Text();
  job.sampling.logprobs.reset();
  wire::Begin message;
  ToWire(BeginCommand{1, 1, job, {}}, &message);
  EXPECT_FALSE(std::get<TextJob>(FromWire(message)->job).sampling.logprobs.has_value());
}

TEST(WireTest, CarriesEveryFieldOfAPicture) {
  PictureJob job;
  job.prompt = {101, 102, 0};
  job.negative_prompt = {101, 7, 0};
  job.width = 512;
  job.height = 768;
  job.sampler = "euler_a";
  job.steps = 20;
  job.guidance = 7.5f;
  job.seed = 42;
  job.score_prompt = {101, 9, 102};
  wire::Begin message;
  ToWire(BeginCommand{1, 0, job, Resume{{}, std::string("\0\xff", 2)}}, &message);
  absl::StatusOr<BeginCommand> begin = FromWire(message);
  ASSERT_TRUE(begin.ok());
  const PictureJob& got = std::get<PictureJob>(begin->job);
  EXPECT_EQ(got.prompt, job.prompt);
  EXPECT_EQ(got.negative_prompt, job.negative_prompt);
  EXPECT_EQ(got.width, 512u);
  EXPECT_EQ(got.height, 768u);
  EXPECT_EQ(got.sampler, "euler_a");
  EXPECT_EQ(got.steps, 20u);
  EXPECT_EQ(got.guidance, 7.5f);
  EXPECT_EQ(got.seed, 42u);
  EXPECT_EQ(got.score_prompt, job.score_prompt);
  EXPECT_EQ(begin->resume.save_point, std::string("\0\xff", 2));
}

TEST(WireTest, RefusesASampleWithoutAKind) {
  EXPECT_EQ(FromWire(wire::Begin()).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(WireTest, CarriesStepsOfEveryKindAndRefusesUnknownOnes) {
  for (StepKind kind :
       {StepKind::kTextEncode, StepKind::kDenoise, StepKind::kVaeDecode, StepKind::kText}) {
    wire::Step message;
    ToWire(
        Step{9, 2, kind, {{5, 16, {1, 0, 7}, true}, {6, 0, {}, false, 3}}, absl::Milliseconds(20)},
        &message);
    absl::StatusOr<Step> step = FromWire(message);
    ASSERT_TRUE(step.ok());
    EXPECT_EQ(step->id, 9u);
    EXPECT_EQ(step->model, 2u);
    EXPECT_EQ(step->kind, kind);
    ASSERT_EQ(step->rows.size(), 2u);
    EXPECT_EQ(step->rows[0].prefill_tokens, 16u);
    EXPECT_EQ(step->rows[0].new_pages, (std::vector<uint32_t>{1, 0, 7}));
    EXPECT_TRUE(step->rows[0].preview);
    EXPECT_EQ(step->rows[0].draft_tokens, 0u);
    EXPECT_EQ(step->rows[1].sample, 6u);
    EXPECT_EQ(step->rows[1].draft_tokens, 3u);
    EXPECT_EQ(step->budget, absl::Milliseconds(20));
  }
  wire::Step unknown;
  unknown.set_kind(static_cast<wire::StepKind>(77));
  EXPECT_EQ(FromWire(unknown).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(WireTest, ABudgetNeverBecomesNone) {
  for (const auto& [budget, carried] :
       {std::pair{absl::ZeroDuration(), absl::ZeroDuration()},
        {absl::Nanoseconds(1), absl::Microseconds(1)},
        {absl::Microseconds(10) + absl::Nanoseconds(1), absl::Microseconds(11)},
        {absl::InfiniteDuration(), absl::Hours(1)},
        {-absl::Seconds(1), absl::ZeroDuration()}}) {
    wire::Resume message;
    ToWire(ResumeCommand{8, budget}, &message);
    EXPECT_EQ(FromWire(message).step, 8u);
    EXPECT_EQ(FromWire(message).budget, carried);
  }
}

TEST(WireTest, CarriesSlices) {
  StepResult suspended, late;
  suspended.suspended = true;
  late.already_done = true;
  wire::StepDone first, second;
  ToWire(suspended, &first);
  ToWire(late, &second);
  EXPECT_TRUE(FromWire(first).suspended);
  EXPECT_FALSE(FromWire(first).already_done);
  EXPECT_TRUE(FromWire(second).already_done);
  EXPECT_FALSE(FromWire(second).suspended);
}

TEST(WireTest, CarriesResultsWithTheirErrorsTokensAndPictures) {
  StepResult result;
  result.step = 4;
  result.device_time = absl::Milliseconds(250);
  result.idle_time = absl::Microseconds(30);
  result.memory = {0, 3ull << 33, 1ull << 33};
  result.peak_bytes = 1ull << 34;
  RowResult text;
  text.sample = 1;
  text.drafted = 5;
  text.tokens = {{12, -0.25f, {{12, -0.25f}, {13, -1.5f}}}, {14, 0, {}}};
  RowResult picture;
  picture.sample = 2;
  picture.steps_done = 3;
  picture.steps_total = 20;
  picture.picture = {2, 3, std::string(18, '\x80')};
  picture.preview = {1, 2, "abcdef"};
  picture.score = 0;
  RowResult failed;
  failed.sample = 3;
  failed.status = absl::InternalError("non-finite");
  RowResult skipped;
  skipped.sample = 4;
  skipped.skipped = true;
  result.rows = {text, picture, failed, skipped};
  wire::StepDone message;
  ToWire(result, &message);
  const StepResult got = FromWire(message);
  EXPECT_TRUE(got.status.ok());
  EXPECT_EQ(got.device_time, absl::Milliseconds(250));
  EXPECT_EQ(got.idle_time, absl::Microseconds(30));
  EXPECT_EQ(got.memory.used, 1ull << 33);
  EXPECT_EQ(got.memory.free, 3ull << 33);
  EXPECT_EQ(got.peak_bytes, 1ull << 34);
  ASSERT_EQ(got.rows.size(), 4u);
  ASSERT_EQ(got.rows[0].tokens.size(), 2u);
  EXPECT_EQ(got.rows[0].drafted, 5u);
  EXPECT_EQ(got.rows[0].tokens[0].top[1].id, 13u);
  EXPECT_EQ(got.rows[0].tokens[0].logprob, -0.25f);
  EXPECT_EQ(got.rows[0].picture.width, 0u);
  EXPECT_EQ(got.rows[1].picture.width, 2u);
  EXPECT_EQ(got.rows[1].picture.height, 3u);
  EXPECT_EQ(got.rows[1].picture.rgb, picture.picture.rgb);
  EXPECT_EQ(got.rows[1].preview.height, 2u);
  EXPECT_EQ(got.rows[1].steps_total, 20u);
  EXPECT_FALSE(got.rows[0].score.has_value());
  EXPECT_EQ(got.rows[1].score, 0.0f);
  EXPECT_EQ(got.rows[2].status, absl::InternalError("non-finite"));
  EXPECT_TRUE(got.rows[3].skipped);
}

TEST(WireTest, CarriesLoadedModelsAndWhyNot) {
  LoadedModel model;
  model.architecture = "StableDiffusionPipeline";
  model.dtype = "bfloat16";
  model.weight_bytes = 4'000'000'000;
  model.latent_factor = 8;
  model.latent_channels = 4;
  model.default_size = 512;
  model.prompt_tokens = 77;
  model.default_sampler = "pndm";
  model.samplers = {"ddim", "pndm"};
  model.has_reranker = true;
  wire::Loaded message;
  ToWire(5, model, &message);
  EXPECT_EQ(message.model(), 5u);
  EXPECT_FALSE(message.has_text());
  absl::StatusOr<LoadedModel> got = FromWire(message);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->weight_bytes, model.weight_bytes);
  EXPECT_EQ(got->samplers, model.samplers);
  EXPECT_TRUE(got->has_reranker);
  EXPECT_EQ(got->default_size, 512u);
  EXPECT_EQ(got->context_tokens, 0u);

  wire::Loaded failed;
  ToWire(5, absl::InvalidArgumentError("tensor a: shape"), &failed);
  EXPECT_EQ(FromWire(failed).status(), absl::InvalidArgumentError("tensor a: shape"));
}

}  // namespace
}  // namespace hanmo
