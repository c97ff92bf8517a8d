#include "workers/samplers/sampler.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "workers/samplers/goldens_for_test.h"
#include "workers/samplers/guidance.h"
#include "workers/samplers/save_point.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

constexpr LatentShape kShape{4, 5, 3};

nlohmann::json TaiyiConfig() {
  return {
      {"_class_name", "PNDMScheduler"},   {"beta_start", 0.00085},  {"beta_end", 0.012},
      {"beta_schedule", "scaled_linear"}, {"skip_prk_steps", true}, {"num_train_timesteps", 1000}};
}

std::shared_ptr<const Sampler> NewSampler(const std::string& name, int steps,
                                          const nlohmann::json& extra = {}) {
  SamplerRequest request;
  request.scheduler_config = TaiyiConfig();
  if (!extra.is_null()) request.scheduler_config.update(extra);
  request.sampler = name;
  request.steps = steps;
  auto sampler = Sampler::Create(request);
  EXPECT_TRUE(sampler.ok()) << sampler.status();
  return *std::move(sampler);
}

absl::Status CreateError(const std::string& name, int steps, const nlohmann::json& extra) {
  SamplerRequest request;
  request.scheduler_config = TaiyiConfig();
  if (!extra.is_null()) request.scheduler_config.update(extra);
  request.sampler = name;
  request.steps = steps;
  return Sampler::Create(request).status();
}

void StepOnce(const Sampler& sampler, SamplerState& state) {
  const ModelInput input = sampler.Input(state);
  const at::Tensor output = at::sin(input.latent * 1.7 + input.timestep * 0.01);
  ASSERT_TRUE(sampler.Step(output, state).ok());
}

struct Variant {
  std::string sampler;
  nlohmann::json extra;
  int steps = 7;
};

// All samplers, and those settings that change what a state holds.
std::vector<Variant> Variants() {
  std::vector<Variant> variants;
  for (const char* name : {"ddim", "pndm", "euler", "euler_a", "dpmpp_2m", "lcm", "unipc"}) {
    variants.push_back({name, {}});
    variants.push_back({name, {}, 1});
  }
  variants.push_back({"pndm", {{"skip_prk_steps", false}}, 6});
  variants.push_back({"dpmpp_2m", {{"solver_order", 1}}});
  variants.push_back({"dpmpp_2m", {{"solver_order", 3}}});
  variants.push_back({"unipc", {{"solver_order", 1}}});
  variants.push_back({"unipc", {{"solver_order", 3}}});
  variants.push_back({"unipc", {{"disable_corrector", {0, 3}}}});
  return variants;
}

TEST(SamplerTest, ContinuesFromEverySavePointWithTheSameBits) {
  for (const Variant& variant : Variants()) {
    const auto sampler = NewSampler(variant.sampler, variant.steps, variant.extra);
    std::vector<std::string> saves;
    SamplerState state = sampler->Begin(11, kShape);
    while (true) {
      saves.push_back(sampler->Save(state));
      if (sampler->done(state)) break;
      StepOnce(*sampler, state);
    }
    ASSERT_EQ(saves.size(), static_cast<size_t>(sampler->model_calls()) + 1);
    for (const std::string& save : saves) {
      SCOPED_TRACE(variant.sampler + variant.extra.dump());
      auto restored = sampler->Restore(save, kShape);
      ASSERT_TRUE(restored.ok()) << restored.status();
      EXPECT_EQ(sampler->Save(*restored), save);
      while (!sampler->done(*restored)) StepOnce(*sampler, *restored);
      EXPECT_TRUE(at::equal(restored->latent, state.latent));
      EXPECT_EQ(sampler->Save(*restored), saves.back());
    }
  }
}

TEST(SamplerTest, StatesOfOneSamplerDoNotTouchEachOther) {
  for (const Variant& variant : Variants()) {
    const auto sampler = NewSampler(variant.sampler, variant.steps, variant.extra);
    SamplerState alone = sampler->Begin(3, kShape);
    while (!sampler->done(alone)) StepOnce(*sampler, alone);
    SamplerState first = sampler->Begin(3, kShape);
    SamplerState second = sampler->Begin(4, kShape);
    while (!sampler->done(first)) {
      SamplerState copy = first;  // a copy that goes ahead
      StepOnce(*sampler, copy);
      StepOnce(*sampler, second);
      StepOnce(*sampler, first);
      EXPECT_TRUE(at::equal(copy.latent, first.latent)) << variant.sampler;
    }
    EXPECT_TRUE(at::equal(alone.latent, first.latent)) << variant.sampler;
    EXPECT_FALSE(at::equal(second.latent, first.latent)) << variant.sampler;
  }
}

TEST(SamplerTest, SavePointStaysSmallAtFiveHundredTwelvePixels) {
  for (const char* name : {"ddim", "pndm", "euler", "euler_a", "dpmpp_2m", "lcm", "unipc"}) {
    const auto sampler = NewSampler(name, 8);
    SamplerState state = sampler->Begin(1, {4, 64, 64});
    size_t largest = 0;
    while (!sampler->done(state)) {
      StepOnce(*sampler, state);
      largest = std::max(largest, sampler->Save(state).size());
    }
    EXPECT_GE(largest, 64u << 10) << name;
    EXPECT_LE(largest, (256u << 10) + 64) << name;
  }
}

TEST(SamplerTest, RefusesTornAndAlteredSavePoints) {
  const auto sampler = NewSampler("unipc", 5);
  SamplerState state = sampler->Begin(5, kShape);
  for (int i = 0; i < 3; ++i) StepOnce(*sampler, state);
  const std::string save = sampler->Save(state);
  for (size_t length = 0; length < save.size(); ++length) {
    EXPECT_EQ(sampler->Restore(save.substr(0, length), kShape).status().code(),
              absl::StatusCode::kInvalidArgument)
        << length;
  }
  EXPECT_FALSE(sampler->Restore(save + '\0', kShape).ok());
  for (size_t byte = 0; byte < save.size(); ++byte) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string altered = save;
      altered[byte] = static_cast<char>(altered[byte] ^ (1 << bit));
      EXPECT_FALSE(sampler->Restore(altered, kShape).ok()) << byte << "." << bit;
    }
  }
}

TEST(SamplerTest, RefusesASavePointWhoseHeaderCannotBe) {
  const auto sampler = NewSampler("unipc", 5);
  SamplerState state = sampler->Begin(5, kShape);
  for (int i = 0; i < 3; ++i) StepOnce(*sampler, state);
  const std::string save = sampler->Save(state);
  // All fields but the noise's seed and draws, each with values that a writer would not write but
  // under a checksum that fits.
  for (size_t offset : {0, 4, 8, 32, 36, 40, 44, 48, 52}) {
    for (uint32_t value : {0x7fffffffu, 0xffffffffu, 0x80000000u, 63u, 4000000u}) {
      std::string forged = save.substr(0, save.size() - 8);
      forged.replace(offset, 4, reinterpret_cast<const char*>(&value), 4);
      const uint64_t checksum = Checksum(forged);
      forged.append(reinterpret_cast<const char*>(&checksum), 8);
      EXPECT_EQ(sampler->Restore(forged, kShape).status().code(),
                absl::StatusCode::kInvalidArgument)
          << offset << " " << value;
    }
  }
}

TEST(SamplerTest, RefusesASavePointOfAnotherSamplerOrShape) {
  const auto sampler = NewSampler("pndm", 5);
  SamplerState state = sampler->Begin(5, kShape);
  StepOnce(*sampler, state);
  const std::string save = sampler->Save(state);
  EXPECT_TRUE(sampler->Restore(save, kShape).ok());
  EXPECT_THAT(std::string(sampler->Restore(save, {4, 5, 4}).status().message()),
              HasSubstr("4x5x3, expected 4x5x4"));
  for (const auto& other : {NewSampler("ddim", 5), NewSampler("pndm", 6),
                            NewSampler("pndm", 5, {{"beta_end", 0.013}})}) {
    EXPECT_THAT(std::string(other->Restore(save, kShape).status().message()),
                HasSubstr("another sampler"));
  }
}

TEST(SamplerTest, StepAfterTheEndOrOfAnotherShapeIsAnErrorThatChangesNothing) {
  const auto sampler = NewSampler("euler", 1);
  SamplerState state = sampler->Begin(5, kShape);
  const std::string before = sampler->Save(state);
  EXPECT_EQ(sampler->Step(at::zeros({4, 3, 5}), state).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(sampler->Save(state), before);
  StepOnce(*sampler, state);
  EXPECT_EQ(sampler->Step(at::zeros({4, 5, 3}), state).code(), absl::StatusCode::kInternal);
}

TEST(SamplerTest, HalfPrecisionModelOutputsKeepTheStateInFloat32) {
  for (const Variant& variant : Variants()) {
    const auto sampler = NewSampler(variant.sampler, variant.steps, variant.extra);
    SamplerState state = sampler->Begin(5, kShape);
    const at::Tensor output = at::ones({4, 5, 3}, at::kBFloat16);
    ASSERT_TRUE(sampler->Step(output, state).ok());
    EXPECT_EQ(state.latent.scalar_type(), at::kFloat);
    for (const at::Tensor& tensor : state.history) EXPECT_EQ(tensor.scalar_type(), at::kFloat);
  }
}

TEST(SamplerTest, TakesTheClassOfTheFileUnlessAskedOtherwise) {
  SamplerRequest request;
  request.scheduler_config = TaiyiConfig();
  EXPECT_EQ((*Sampler::Create(request))->kind(), SamplerKind::kPndm);
  request.default_class = "DDIMScheduler";
  EXPECT_EQ((*Sampler::Create(request))->kind(), SamplerKind::kDdim);
  request.sampler = "unipc";
  EXPECT_EQ((*Sampler::Create(request))->kind(), SamplerKind::kUniPc);
  request = {.scheduler_config = {{"_class_name", "FlowMatchEulerDiscreteScheduler"}}};
  EXPECT_THAT(std::string(Sampler::Create(request).status().message()),
              HasSubstr("FlowMatchEulerDiscreteScheduler is not supported; supported: DDIM"));
}

struct Refusal {
  const char* sampler;
  int steps;
  nlohmann::json extra;
  const char* message;
};

void ExpectRefused(const std::vector<Refusal>& refusals) {
  for (const Refusal& refusal : refusals) {
    const absl::Status status = CreateError(refusal.sampler, refusal.steps, refusal.extra);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << refusal.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(refusal.message));
  }
}

TEST(SamplerTest, NamesTheSamplerOrStepsItRefuses) {
  const nlohmann::json runge_kutta = {{"skip_prk_steps", false}};
  ExpectRefused({
      {"heun", 5, {}, "sampler must be one of ddim, pndm, euler, euler_a, dpmpp_2m, lcm, unipc"},
      {"ddim", 0, {}, "steps must be in 1 to 1000"},
      {"ddim", 1001, {}, "steps must be in 1 to 1000"},
      {"lcm", 51, {}, "steps must be in 1 to 50"},
      {"pndm", 3, runge_kutta, "steps must be at least 4"},
      {"ddim", 1000, {}, "steps: this number leads to training timestep 1000"},
  });
}

TEST(SamplerTest, NamesTheKeyItRefuses) {
  const nlohmann::json as_sample = {{"prediction_type", "sample"}};
  ExpectRefused({
      {"pndm", 5, as_sample, "must be one of epsilon, v_prediction, found \"sample\""},
      {"euler_a", 5, as_sample, "prediction_type must be one of epsilon, v_prediction, found"},
      {"ddim", 5, {{"beta_schedule", "sigmoid"}}, "linear, scaled_linear, squaredcos_cap_v2"},
      {"ddim", 5, {{"timestep_spacing", "log"}}, "leading, linspace, trailing"},
      {"ddim", 5, {{"beta_start", "low"}}, "beta_start must be a number, found \"low\""},
      {"ddim", 5, {{"beta_start", 2}}, "beta_start must be in 0 to 1"},
      {"ddim", 5, {{"set_alpha_to_one", 1}}, "set_alpha_to_one must be true or false"},
      {"ddim", 5, {{"num_train_timesteps", 10.5}}, "num_train_timesteps must be an integer"},
      {"ddim", 5, {{"num_train_timesteps", 1e8}}, "num_train_timesteps must be in 2 to 100000"},
      {"ddim", 5, {{"trained_betas", {0.1, 0.2}}}, "null or num_train_timesteps numbers"},
      {"ddim", 5, {{"trained_betas", "many"}}, "trained_betas must be a list of numbers"},
  });
}

TEST(SamplerTest, NamesTheSolverKeyItRefuses) {
  const nlohmann::json flow = {{"prediction_type", "flow_prediction"}};
  const nlohmann::json corrector = {{"disable_corrector", {0.5}}};
  const nlohmann::json both = {{"use_karras_sigmas", true}, {"use_exponential_sigmas", true}};
  const nlohmann::json clipped = {{"lambda_min_clipped", 1e9}, {"timestep_spacing", "trailing"}};
  ExpectRefused({
      {"euler", 5, {{"use_beta_sigmas", true}}, "use_beta_sigmas must be absent"},
      {"euler", 5, {{"sigma_min", -1}}, "sigma_min must be null or above 0"},
      {"euler", 5, {{"final_sigmas_type", "one"}}, "zero, sigma_min"},
      {"unipc", 5, flow, "prediction_type must be one of"},
      {"unipc", 5, {{"use_flow_sigmas", true}}, "use_flow_sigmas must be absent"},
      {"unipc", 5, {{"solver_order", 4}}, "solver_order must be in 1 to 3"},
      {"unipc", 5, {{"solver_p", "x"}}, "solver_p must be absent"},
      {"unipc", 5, corrector, "disable_corrector must be a list of integers"},
      {"dpmpp_2m", 5, {{"algorithm_type", "sde-dpmsolver++"}}, "one of dpmsolver++, deis"},
      {"dpmpp_2m", 5, {{"variance_type", "learned"}}, "variance_type must be absent"},
      {"dpmpp_2m", 5, {{"solver_type", "rk4"}}, "midpoint, heun"},
      {"dpmpp_2m", 5, both, "use_exponential_sigmas must be false when use_karras_sigmas is true"},
      {"dpmpp_2m", 5, clipped, "leaves no timestep"},
  });
}

TEST(SamplerTest, IgnoresKeysOfOtherClassesAsDiffusersDoes) {
  const auto plain = NewSampler("pndm", 5);
  const auto more = NewSampler(
      "pndm", 5, {{"use_karras_sigmas", true}, {"solver_order", 9}, {"unheard_of", {1, 2}}});
  EXPECT_EQ(plain->timesteps(), more->timesteps());
}

TEST(SchedulerConfigTest, ReadsThePythonSpellingOfInfinity) {
  const auto file =
      ParseSchedulerConfig(R"({"lambda_min_clipped": -Infinity, "note": "a NaN \" Infinity"})");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)["note"], "a NaN \" Infinity");
  const auto config = SchedulerConfigFor(SamplerKind::kDpmSolver2M, *file, true);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->lambda_min_clipped, -std::numeric_limits<double>::infinity());
}

TEST(SchedulerConfigTest, RefusesTextThatIsNoObject) {
  for (const char* text : {"", "[]", "{", "NaN", "{\"a\": NaN", "\"", "\"\\", "{\"a\": -}"}) {
    EXPECT_EQ(ParseSchedulerConfig(text).status().code(), absl::StatusCode::kInvalidArgument)
        << text;
  }
}

TEST(SchedulerConfigTest, ForcesWhatTheLatentPipelineForces) {
  const nlohmann::json file = {{"clip_sample", true}, {"steps_offset", 0}};
  const auto latent = SchedulerConfigFor(SamplerKind::kDdim, file, true);
  EXPECT_FALSE(latent->clip_sample);
  EXPECT_EQ(latent->steps_offset, 1);
  const auto pixel = SchedulerConfigFor(SamplerKind::kDdim, file, false);
  EXPECT_TRUE(pixel->clip_sample);
  EXPECT_EQ(pixel->steps_offset, 0);
}

TEST(GuidanceTest, CombinesInDiffusersOrder) {
  const at::Tensor unconditional = at::tensor({0.1f, -2.0f, 3.0f});
  const at::Tensor conditional = at::tensor({0.7f, 1.0f, 3.0f});
  const at::Tensor guided = Guide(unconditional, conditional, 7.5);
  for (int i = 0; i < 3; ++i) {
    const float u = unconditional[i].item<float>();
    const float difference = conditional[i].item<float>() - u;
    const float scaled = difference * 7.5f;
    EXPECT_EQ(guided[i].item<float>(), u + scaled);
  }
  EXPECT_TRUE(UsesGuidance(1.01));
  EXPECT_FALSE(UsesGuidance(1.0));
  EXPECT_FALSE(UsesGuidance(7.5, /*model_takes_guidance=*/true));
}

}  // namespace
}  // namespace hanmo
