#include "workers/kernels/attention.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <random>
#include <vector>

namespace hanmo {
namespace {

float Widen(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }
float Widen(float value) { return value; }

template <typename T>
T Narrow(float value) {
  if constexpr (sizeof(T) == 4) {
    return value;
  } else {
    return static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
  }
}

struct Shape {
  int64_t queries, keys, width, stride;
};

template <typename T>
std::vector<T> Random(int64_t rows, int64_t stride, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(rows * stride);
  for (T& value : values) value = Narrow<T>(normal(random));
  return values;
}

// The definition, in double.
template <typename T>
std::vector<double> Reference(const Shape& s, const std::vector<T>& q, const std::vector<T>& k,
                              const std::vector<T>& v, double scale) {
  std::vector<double> out(s.queries * s.width);
  for (int64_t i = 0; i < s.queries; ++i) {
    std::vector<double> weights(s.keys);
    double largest = -INFINITY, sum = 0;
    for (int64_t j = 0; j < s.keys; ++j) {
      for (int64_t c = 0; c < s.width; ++c) {
        weights[j] += scale * Widen(q[i * s.stride + c]) * Widen(k[j * s.stride + c]);
      }
      largest = std::max(largest, weights[j]);
    }
    for (double& weight : weights) sum += weight = std::exp(weight - largest);
    for (int64_t j = 0; j < s.keys; ++j) {
      for (int64_t c = 0; c < s.width; ++c) {
        out[i * s.width + c] += weights[j] / sum * Widen(v[j * s.stride + c]);
      }
    }
  }
  return out;
}

const Shape kShapes[] = {
    {1, 1, 1, 1},      {8, 16, 16, 16},    {9, 77, 40, 120},    {17, 480, 40, 40},
    {16, 481, 64, 64}, {5, 1000, 80, 96},  {24, 512, 160, 480}, {3, 33, 7, 9},
    {11, 50, 33, 33},  {2, 961, 256, 256}, {64, 64, 3, 12},
};

template <typename T>
void ExpectFollowsDefinition(AttentionType type, double tolerance) {
  const AttentionKernel* kernel = FindAttentionKernel(type);
  if (kernel == nullptr) GTEST_SKIP() << "this CPU has no such kernel";
  for (const Shape& s : kShapes) {
    const auto q = Random<T>(s.queries, s.stride, 1);
    const auto k = Random<T>(s.keys, s.stride, 2);
    const auto v = Random<T>(s.keys, s.stride, 3);
    // A large scale makes single keys win, so that the running maximum moves between blocks.
    for (const float scale : {1.0f / std::sqrt(static_cast<float>(s.width)), 3.0f}) {
      const AttentionHead head = {.keys = s.keys,
                                  .width = s.width,
                                  .q_stride = s.stride,
                                  .k_stride = s.stride,
                                  .v_stride = s.stride,
                                  .out_stride = s.width + 2,
                                  .scale = scale};
      std::vector<uint32_t> packed(kernel->packed_words(head));
      kernel->pack(head, k.data(), v.data(), packed.data());
      const T untouched = Narrow<T>(123.0f);
      std::vector<T> out(s.queries * (s.width + 2), untouched);
      kernel->attend(head, q.data(), s.queries, packed.data(), out.data());
      const std::vector<double> expected = Reference(s, q, k, v, scale);
      double worst = 0;
      for (int64_t i = 0; i < s.queries; ++i) {
        for (int64_t c = 0; c < s.width; ++c) {
          worst = std::max(worst,
                           std::abs(Widen(out[i * (s.width + 2) + c]) - expected[i * s.width + c]));
        }
        EXPECT_EQ(out[i * (s.width + 2) + s.width], untouched);
      }
      // Scores of hundreds carry their own rounding into the exponent.
      EXPECT_LT(worst, scale > 1 ? 10 * tolerance : tolerance)
          << s.queries << "x" << s.keys << "x" << s.width << " " << scale;
    }
  }
}

TEST(AttentionTest, FloatFollowsTheDefinition) {
  ExpectFollowsDefinition<float>(AttentionType::kFloat, 2e-5);
}

TEST(AttentionTest, Bfloat16FollowsTheDefinition) {
  // Weights and results are rounded to 8 bits; values reach 4.
  ExpectFollowsDefinition<uint16_t>(AttentionType::kBfloat16, 0.03);
}

}  // namespace
}  // namespace hanmo
