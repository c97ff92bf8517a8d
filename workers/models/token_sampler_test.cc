#include "workers/models/token_sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "workers/models/philox.h"

namespace hanmo {
namespace {

using ::testing::ElementsAre;

// Known answers from the Random123 distribution (kat_vectors, philox4x32 with 10 rounds).
TEST(PhiloxTest, AnswersTheKnownVectors) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  constexpr uint32_t kOnes = 0xffffffff;
  EXPECT_THAT(Philox4x32({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(PhiloxTest, DrawsAreUniformIn01) {
  double sum = 0;
  for (uint64_t i = 0; i < 1'000'000; ++i) {
    const double draw = UniformDraw(7, i);
    ASSERT_GE(draw, 0);
    ASSERT_LT(draw, 1);
    sum += draw;
  }
  EXPECT_NEAR(sum / 1'000'000, 0.5, 0.001);
  EXPECT_EQ(UniformDraw(0, 0), (uint64_t{0x6627e8d5e169c58d} >> 11) * 0x1p-53);
}

Token Sample(std::vector<float> logits, const TokenSampling& sampling,
             const std::vector<uint32_t>& prompt = {}, const std::vector<uint32_t>& generated = {},
             const std::vector<uint32_t>& ending = {}) {
  auto token = SampleToken(absl::MakeSpan(logits), sampling, {prompt, generated}, {ending, {}});
  EXPECT_TRUE(token.ok()) << token.status();
  return token.ok() ? *token : Token{};
}

// Shares of each id over many seeds.
std::map<uint32_t, double> Shares(const std::vector<float>& logits, TokenSampling sampling) {
  constexpr int kDraws = 20'000;
  std::map<uint32_t, double> shares;
  for (sampling.seed = 0; sampling.seed < kDraws; ++sampling.seed) {
    shares[Sample(logits, sampling).id] += 1.0 / kDraws;
  }
  return shares;
}

std::vector<float> LogitsOf(std::vector<float> probabilities) {
  for (float& p : probabilities) p = std::log(p);
  return probabilities;
}

TEST(SampleTokenTest, ZeroTemperatureTakesTheLargestAndTheLowestOfEquals) {
  EXPECT_EQ(Sample({1, 3, 2}, {.temperature = 0}).id, 1u);
  EXPECT_EQ(Sample({1, 3, 3}, {.temperature = 0}).id, 1u);
}

TEST(SampleTokenTest, DrawsInProportion) {
  const auto shares = Shares(LogitsOf({0.1, 0.2, 0.3, 0.4}), {});
  for (uint32_t id = 0; id < 4; ++id) EXPECT_NEAR(shares.at(id), 0.1 * (id + 1), 0.015);
}

TEST(SampleTokenTest, TemperatureSharpens) {
  const auto shares = Shares(LogitsOf({0.2, 0.8}), {.temperature = 0.5});
  EXPECT_NEAR(shares.at(0), 0.04 / 0.68, 0.01);
}

TEST(SampleTokenTest, FiltersKeepWhatTransformersKeeps) {
  const std::vector<float> logits = LogitsOf({0.05, 0.15, 0.3, 0.5});
  struct Case {
    TokenSampling sampling;
    std::vector<uint32_t> kept;
  };
  const Case cases[] = {
      {{.top_k = 1}, {3}},
      {{.top_k = 2}, {2, 3}},
      {{.top_k = 9}, {0, 1, 2, 3}},
      {{.top_p = 0.01}, {3}},
      {{.top_p = 0.6}, {2, 3}},
      {{.top_p = 0.85}, {1, 2, 3}},
      {{.min_p = 0.5}, {2, 3}},
      {{.min_p = 1}, {3}},
      // top-p sees what top-k left: 0.5 of 0.8 is less than 0.7.
      {{.top_k = 2, .top_p = 0.7}, {2, 3}},
      {{.top_k = 2, .top_p = 0.6}, {3}},
  };
  for (const Case& c : cases) {
    std::vector<uint32_t> seen;
    double total = 0;
    for (const auto& [id, share] : Shares(logits, c.sampling)) seen.push_back(id), total += share;
    EXPECT_EQ(seen, c.kept) << "top_k " << c.sampling.top_k << " top_p " << c.sampling.top_p
                            << " min_p " << c.sampling.min_p;
    EXPECT_NEAR(total, 1, 1e-9);
  }
}

TEST(SampleTokenTest, TopKKeepsTokensEqualToTheKth) {
  const auto shares = Shares({1, 2, 1, 0}, {.top_k = 2});
  EXPECT_EQ(shares.size(), 3u);
  EXPECT_FALSE(shares.contains(3));
}

// The plain definition: everything sorted, then cut, then walked.
uint32_t DrawnByFullSort(std::vector<float> logits, const TokenSampling& sampling) {
  const float max = *std::max_element(logits.begin(), logits.end());
  for (float& logit : logits) logit = (logit - max) / sampling.temperature;
  std::vector<uint32_t> order;
  for (uint32_t id = 0; id < logits.size(); ++id) {
    if (std::isfinite(logits[id])) order.push_back(id);
  }
  std::stable_sort(order.begin(), order.end(),
                   [&](uint32_t a, uint32_t b) { return logits[a] > logits[b]; });
  const auto weight = [&](size_t rank) { return std::exp(double{logits[order[rank]]}); };
  if (const size_t k = sampling.top_k; k > 0 && k < order.size()) {
    size_t count = k;
    while (count < order.size() && logits[order[count]] == logits[order[k - 1]]) ++count;
    order.resize(count);
  }
  double total = 0, kept = 0, mass = 0;
  for (size_t rank = 0; rank < order.size(); ++rank) total += weight(rank);
  size_t count = 0;
  while (count < order.size() &&
         (count == 0 || (kept < sampling.top_p * total && weight(count) >= sampling.min_p))) {
    kept += weight(count++);
  }
  const double target = UniformDraw(sampling.seed, 0) * kept;
  size_t rank = 0;
  while ((mass += weight(rank)) <= target && rank + 1 < count) ++rank;
  return order[rank];
}

TEST(SampleTokenTest, EqualsAFullSortOnLargeVocabularies) {
  std::mt19937 random(1);
  for (const float spread : {0.01f, 1.0f, 5.0f, 20.0f}) {
    std::normal_distribution<float> normal(0, spread);
    std::vector<float> logits(5000);
    for (float& logit : logits) logit = normal(random);
    // As bias and masks leave them; and many that are equal.
    for (size_t id = 0; id < logits.size(); id += 7) logits[id] = -1e30f;
    for (size_t id = 0; id < logits.size(); id += 5) logits[id] = std::round(logits[id]);
    std::map<uint32_t, float> bias;
    std::vector<float> possible = logits;
    for (uint32_t id = 0; id < logits.size(); id += 3) {
      bias[id] = possible[id] = -std::numeric_limits<float>::infinity();
    }
    const TokenSampling cuts[] = {{},
                                  {.top_p = 0.3f},
                                  {.top_p = 0.95f},
                                  {.min_p = 0.02f},
                                  {.top_k = 40},
                                  {.top_k = 4000},
                                  {.temperature = 0.4f, .top_p = 0.9f},
                                  {.temperature = 2, .top_k = 1},
                                  {.top_k = 1'000'000},
                                  {.min_p = 1},
                                  {.top_k = 1000, .top_p = 0.9f, .min_p = 0.001f}};
    for (TokenSampling sampling : cuts) {
      sampling.logit_bias = bias;
      for (sampling.seed = 0; sampling.seed < 12; ++sampling.seed) {
        EXPECT_EQ(Sample(logits, sampling).id, DrawnByFullSort(possible, sampling))
            << "spread " << spread << " top_k " << sampling.top_k << " top_p " << sampling.top_p
            << " min_p " << sampling.min_p << " seed " << sampling.seed;
      }
    }
  }
}

TEST(SampleTokenTest, DrawsFromAllShapesOfVocabularies) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    // All equal, one alone, nearly equal, far apart.
    EXPECT_LT(Sample(std::vector<float>(1000, -3.0f), {.seed = seed}).id, 1000u);
    EXPECT_EQ(Sample({5.0f}, {.seed = seed}).id, 0u);
    EXPECT_LT(Sample({0.0f, -1e-38f}, {.seed = seed}).id, 2u);
    EXPECT_EQ(Sample({0.0f, -3e38f}, {.seed = seed}).id, 0u);
    EXPECT_EQ(Sample({0.0f, 1.0f}, {.logit_bias = {{0, kNever}}, .seed = seed}).id, 1u);
  }
}

TEST(SampleTokenTest, EachTokenHasItsOwnDraw) {
  const std::vector<float> flat(1000, 0.0f);
  const uint32_t first = Sample(flat, {.seed = 5}).id;
  EXPECT_EQ(Sample(flat, {.seed = 5}).id, first);
  EXPECT_NE(Sample(flat, {.seed = 6}).id, first);
  EXPECT_NE(Sample(flat, {.seed = 5}, {}, {first}).id, first);
}

TEST(SampleTokenTest, RepetitionPenaltyCoversPromptAndGenerated) {
  const TokenSampling sampling{.temperature = 0, .repetition_penalty = 2};
  EXPECT_EQ(Sample({4, 3, 2.5}, sampling).id, 0u);
  EXPECT_EQ(Sample({4, 3, 2.5}, sampling, {0}).id, 1u);
  EXPECT_EQ(Sample({4, 3, 2.5}, sampling, {0}, {1}).id, 2u);
  // Negative logits are multiplied, once however often the id occurred.
  EXPECT_EQ(Sample({-1, -1.9, -3}, sampling, {0, 0, 0}).id, 1u);
  EXPECT_EQ(Sample({-1, -2.1, -3}, sampling, {0, 0, 0}).id, 0u);
}

TEST(SampleTokenTest, PresenceAndFrequencyPenaltiesCoverGeneratedOnly) {
  const TokenSampling presence{.temperature = 0, .presence_penalty = 1.5};
  EXPECT_EQ(Sample({4, 3}, presence, {0}).id, 0u);
  EXPECT_EQ(Sample({4, 3}, presence, {}, {0}).id, 1u);
  const TokenSampling frequency{.temperature = 0, .frequency_penalty = 0.6};
  EXPECT_EQ(Sample({4, 3}, frequency, {}, {0}).id, 0u);
  EXPECT_EQ(Sample({4, 3}, frequency, {}, {0, 0}).id, 1u);
}

TEST(SampleTokenTest, LogitBiasMovesAndForbids) {
  EXPECT_EQ(Sample({1, 2}, {.temperature = 0, .logit_bias = {{0, 5}, {9, 1}}}).id, 0u);
  const float infinity = std::numeric_limits<float>::infinity();
  const auto shares = Shares({1, 2, 1}, {.logit_bias = {{1, -infinity}}});
  EXPECT_FALSE(shares.contains(1));
}

TEST(SampleTokenTest, EndingIdsWaitForMinTokens) {
  const TokenSampling sampling{.temperature = 0, .min_tokens = 2};
  EXPECT_EQ(Sample({1, 9}, sampling, {}, {0}, {1}).id, 0u);
  EXPECT_EQ(Sample({1, 9}, sampling, {}, {0, 0}, {1}).id, 1u);
  for (const uint32_t top_k : {0u, 2u}) {
    const TokenSampling drawn{.top_k = top_k, .seed = 3, .min_tokens = 1};
    EXPECT_EQ(Sample({1, 9, 9}, drawn, {}, {}, {1, 2}).id, 0u);
  }
}

TEST(SampleTokenTest, LogprobsAreTheModelsOwn) {
  const Token token =
      Sample(LogitsOf({0.2, 0.3, 0.5}), {.temperature = 0, .logit_bias = {{0, 10}}, .logprobs = 2});
  EXPECT_EQ(token.id, 0u);
  EXPECT_NEAR(token.logprob, std::log(0.2), 1e-6);
  ASSERT_EQ(token.top.size(), 2u);
  EXPECT_EQ(token.top[0].id, 2u);
  EXPECT_NEAR(token.top[0].logprob, std::log(0.5), 1e-6);
  EXPECT_EQ(token.top[1].id, 1u);
  EXPECT_TRUE(Sample({1, 2}, {.logprobs = 0}).top.empty());
  EXPECT_EQ(Sample({1, 2}, {.logprobs = 20}).top.size(), 2u);
}

TEST(SampleTokenTest, ReportsOutputThatIsNotFinite) {
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    std::vector<float> logits(100, 1.0f);
    logits[63] = bad;
    const auto token = SampleToken(absl::MakeSpan(logits), {}, {}, {});
    EXPECT_EQ(token.status().code(), absl::StatusCode::kInternal);
  }
}

TEST(SampleTokenTest, ReportsWhenNothingIsPossible) {
  std::vector<float> logits = {1, 2};
  const std::vector<uint32_t> all = {0, 1};
  const auto token = SampleToken(absl::MakeSpan(logits), {.min_tokens = 1}, {}, {all, {}});
  EXPECT_EQ(token.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(SampleTokenTest, OnlyTokensOfTheMaskAreDrawn) {
  std::vector<float> logits(70);
  for (size_t id = 0; id < logits.size(); ++id) logits[id] = static_cast<float>(id % 7);
  std::vector<uint32_t> mask = {1u << 3 | 1u << 31, 1u << 5, 1u << 4};
  const std::set<uint32_t> allowed = {3, 31, 37, 68};
  std::set<uint32_t> drawn;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    for (const uint32_t top_k : {0, 50}) {
      std::vector<float> copy = logits;
      const auto token =
          SampleToken(absl::MakeSpan(copy), {.top_k = top_k, .seed = seed}, {}, {{}, mask});
      ASSERT_TRUE(token.ok());
      drawn.insert(token->id);
    }
  }
  EXPECT_EQ(drawn, allowed);

  // Ids beyond a short mask are impossible, too; log probabilities are the model's own.
  mask.resize(1);
  const auto token =
      SampleToken(absl::MakeSpan(logits), {.temperature = 0, .logprobs = 1}, {}, {{}, mask});
  ASSERT_TRUE(token.ok());
  EXPECT_EQ(token->id, 3u);
  EXPECT_EQ(token->top[0].id, 6u);
  EXPECT_NEAR(token->top[0].logprob - token->logprob, 3, 1e-5);

  const std::vector<uint32_t> nothing = {0};
  std::vector<float> copy = {1, 2, 3};
  EXPECT_EQ(SampleToken(absl::MakeSpan(copy), {}, {}, {{}, nothing}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace hanmo
