#include "workers/kernels/group_norm.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace hanmo {
namespace {

std::vector<float> Random(int64_t count, float mean) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal(mean, 1.0f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

TEST(GroupNormTest, AddsMomentsAroundTheOrigin) {
  for (const int64_t channels : {1, 5, 16, 33}) {
    const int64_t pixels = 64;
    const std::vector<float> x = Random(pixels * channels, 1000.0f);
    const std::vector<float> origin(channels, 1000.0f);
    std::vector<float> sum(channels, 2.0f), square(channels, 3.0f);
    AddMoments(x.data(), pixels, channels, origin.data(), sum.data(), square.data());
    for (int64_t c = 0; c < channels; ++c) {
      double expected_sum = 2, expected_square = 3;
      for (int64_t i = 0; i < pixels; ++i) {
        const double value = x[i * channels + c] - 1000.0;
        expected_sum += value;
        expected_square += value * value;
      }
      EXPECT_NEAR(sum[c], expected_sum, 1e-4);
      EXPECT_NEAR(square[c], expected_square, 1e-4 * expected_square);
    }
  }
}

TEST(GroupNormTest, ScalesAndAppliesSilu) {
  for (const int64_t channels : {1, 7, 64}) {
    std::vector<float> x = Random(3 * channels, 0.0f);
    x[0] = 200.0f;
    x[channels] = -200.0f;
    const std::vector<float> scale = Random(channels, 1.0f), shift = Random(channels, 0.5f);
    for (const bool silu : {false, true}) {
      std::vector<float> y(x.size());
      ScaleChannels(x.data(), 3, channels, {scale.data(), shift.data(), silu}, y.data());
      for (size_t i = 0; i < x.size(); ++i) {
        const double affine = double{x[i]} * scale[i % channels] + shift[i % channels];
        const double expected = silu ? affine / (1 + std::exp(-affine)) : affine;
        EXPECT_NEAR(y[i], expected, 1e-6 * std::max(1.0, std::abs(affine))) << affine;
      }
    }
  }
}

TEST(GroupNormTest, NanStaysNan) {
  const float one = 1.0f, zero = 0.0f;
  for (const uint32_t bits : {0x7fc00000u, 0x7fffffffu, 0xffffffffu, 0x7f800001u}) {
    const float x = std::bit_cast<float>(bits);
    float y = 0.0f;
    ScaleChannels(&x, 1, 1, {&one, &zero, true}, &y);
    EXPECT_TRUE(std::isnan(y)) << bits;
  }
}

TEST(GroupNormTest, RoundsBfloat16HalfToEven) {
  const float zero = 0.0f;
  // 1 + 2^-8 lies between 1 and 1 + 2^-7: to the even one. 1 + 3 * 2^-8 goes up.
  const std::vector<float> scales = {1.00390625f, 1.01171875f,
                                     std::numeric_limits<float>::quiet_NaN()};
  const std::vector<uint16_t> expected = {0x3f80, 0x3f82};
  const uint16_t x = 0x3f80;
  for (size_t i = 0; i < scales.size(); ++i) {
    uint16_t y = 0;
    ScaleChannels(&x, 1, 1, {&scales[i], &zero, false}, &y);
    if (i < expected.size()) {
      EXPECT_EQ(y, expected[i]);
    } else {
      EXPECT_TRUE(std::isnan(std::bit_cast<float>(uint32_t{y} << 16)));
    }
  }
}

}  // namespace
}  // namespace hanmo
