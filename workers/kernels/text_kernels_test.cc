#include "workers/kernels/text_kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "workers/kernels/testing/text_kernel_test.h"

namespace hanmo {
namespace {

using ::testing::ElementsAreArray;

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

// One matrix of random weights: packed, and as the values that its type can hold.
struct Weights {
  Weights(WeightType type, int64_t in, int64_t out, uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 0.5f);
    std::vector<uint16_t> raw16;
    for (int64_t i = 0; i < in * out; ++i) {
      float value = normal(random);
      if (type == WeightType::kBFloat16) value = FromBf16(ToBf16(value));
      if (type == WeightType::kFloat16) value = FromFloat16(ToFloat16(value));
      values.push_back(value);
      raw16.push_back(type == WeightType::kBFloat16 ? ToBf16(value) : ToFloat16(value));
    }
    data.reset(std::aligned_alloc(64, (PackedBytes(type, in, out) + 63) / 64 * 64));
    packed = {type, in, out, data.get()};
    const void* source = type == WeightType::kFloat32 ? static_cast<const void*>(values.data())
                                                      : static_cast<const void*>(raw16.data());
    PackPanels(packed, {source, out, 1}, 0, packed.panels());
  }
  float at(int64_t i, int64_t o) const { return values[i * packed.out + o]; }

  std::vector<float> values;  // [in, out]
  std::unique_ptr<void, FreeDeleter> data;
  PackedMatrix packed;
};

double Reference(TextActivation activation, double x) {
  switch (activation) {
    case TextActivation::kNone:
      return x;
    case TextActivation::kRelu:
      return std::max(x, 0.0);
    case TextActivation::kSilu:
      return x / (1 + std::exp(-x));
    case TextActivation::kGeluErf:
      return x / 2 * (1 + std::erf(x / std::sqrt(2.0)));
    case TextActivation::kGeluTanh:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
  }
  return 0;
}

class TextKernelsTest : public TextKernelTest {
 protected:
  std::vector<float> RunLinear(const Weights& weights, const Rows& input, int64_t first,
                               int64_t rows,
                               TextActivation activation = TextActivation::kNone) const {
    const int64_t stride = PaddedColumns(weights.packed.out);
    std::vector<float> output(rows * stride, std::nanf(""));
    const char* data =
        static_cast<const char*>(input.data) + first * input.stride * (bf16() ? 2 : 4);
    const LinearCall call{.weights = weights.packed,
                          .input = data,
                          .input_stride = input.stride,
                          .rows = rows,
                          .activation = activation,
                          .output = output.data(),
                          .output_stride = stride};
    kernels().linear(call, 0, weights.packed.panels());
    return output;
  }
};

TEST_P(TextKernelsTest, LinearIsTheMatrixProduct) {
  for (const auto& [in, out] : {std::pair{1, 1}, {48, 77}, {33, 64}, {96, 200}}) {
    const Weights weights(type(), in, out, 1);
    const int64_t rows = 7;
    const Rows input(bf16(), rows, in, 2);
    const std::vector<float> output = RunLinear(weights, input, 0, rows);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t o = 0; o < PaddedColumns(out); ++o) {
        double expected = 0;
        double size = 0;
        for (int64_t i = 0; o < out && i < in; ++i) {
          const double product = double{input.floats[r * input.stride + i]} * weights.at(i, o);
          expected += product;
          size += std::abs(product);
        }
        // A chain of float32 sums of that size.
        ASSERT_NEAR(output[r * PaddedColumns(out) + o], expected, 1e-6 * size + 1e-30)
            << in << "x" << out << " row " << r << " output " << o;
      }
    }
  }
}

TEST_P(TextKernelsTest, LinearRowsDoNotDependOnTheirCompany) {
  const Weights weights(type(), 130, 150, 3);
  const Rows input(bf16(), 40, 130, 4);
  const int64_t stride = PaddedColumns(150);
  const std::vector<float> all = RunLinear(weights, input, 0, 40, TextActivation::kGeluTanh);
  for (int64_t rows = 1; rows <= 13; ++rows) {
    for (int64_t first : {int64_t{0}, int64_t{5}, 40 - rows}) {
      const std::vector<float> some =
          RunLinear(weights, input, first, rows, TextActivation::kGeluTanh);
      ASSERT_EQ(std::memcmp(some.data(), all.data() + first * stride, some.size() * sizeof(float)),
                0)
          << rows << " rows from " << first;
    }
  }
}

TEST_P(TextKernelsTest, LinearAddsBiasActivationAndResidual) {
  const Weights weights(type(), 24, 70, 5);
  const Rows input(bf16(), 3, 24, 6);
  const int64_t stride = PaddedColumns(70);
  const std::vector<float> plain = RunLinear(weights, input, 0, 3);
  std::vector<float> bias(stride);
  for (int64_t o = 0; o < 70; ++o) bias[o] = 0.1f * static_cast<float>(o - 35);
  for (const TextActivation activation :
       {TextActivation::kNone, TextActivation::kGeluTanh, TextActivation::kGeluErf,
        TextActivation::kRelu, TextActivation::kSilu}) {
    std::vector<float> added(3 * stride, 2.0f);
    std::vector<float> wide(3 * stride);
    std::vector<uint16_t> narrow(3 * stride);
    LinearCall call{.weights = weights.packed,
                    .bias = bias.data(),
                    .input = input.data,
                    .input_stride = input.stride,
                    .rows = 3,
                    .activation = activation,
                    .output_as = LinearCall::Output::kAddFloat32,
                    .output = added.data(),
                    .output_stride = stride};
    kernels().linear(call, 0, 2);
    call.output_as = LinearCall::Output::kActivations;
    call.output = bf16() ? static_cast<void*>(narrow.data()) : wide.data();
    kernels().linear(call, 0, 1);  // panel by panel, as threads share the work
    kernels().linear(call, 1, 2);
    for (int64_t i = 0; i < 3 * stride; ++i) {
      const double expected = Reference(activation, double{plain[i]} + bias[i % stride]);
      ASSERT_NEAR(added[i], 2 + expected, 2e-6 * (1 + std::abs(expected)));
      if (bf16()) {
        ASSERT_NEAR(FromBf16(narrow[i]), expected, 0.005 * std::abs(expected) + 1e-6);
      } else {
        ASSERT_NEAR(wide[i], expected, 1e-6 * (1 + std::abs(expected)));
      }
    }
  }
}

TEST_P(TextKernelsTest, UnpackOutputGivesTheWeightsBack) {
  const Weights weights(type(), 37, 90, 7);
  for (const int64_t output : {0, 63, 64, 89}) {
    std::vector<float> row(37), expected(37);
    UnpackOutput(weights.packed, output, row.data());
    for (int64_t i = 0; i < 37; ++i) expected[i] = weights.at(i, output);
    EXPECT_THAT(row, ElementsAreArray(expected));
  }
}

TEST_P(TextKernelsTest, LayerNormIsItsDefinition) {
  for (const int64_t columns : {1, 7, 16, 48, 100, 768}) {
    const Rows x(false, 4, columns, 8);
    const Rows weight(false, 1, columns, 9), bias(false, 1, columns, 10);
    std::vector<float> wide(4 * x.stride);
    std::vector<uint16_t> narrow(4 * x.stride);
    const NormCall call{.type = type(),
                        .x = x.floats.data(),
                        .weight = weight.floats.data(),
                        .bias = bias.floats.data(),
                        .output = bf16() ? static_cast<void*>(narrow.data()) : wide.data(),
                        .columns = columns,
                        .stride = x.stride,
                        .epsilon = 1e-5f};
    kernels().layer_norm(call, 0, 4);
    for (int64_t r = 0; r < 4; ++r) {
      double mean = 0, variance = 0;
      const float* row = x.floats.data() + r * x.stride;
      for (int64_t c = 0; c < columns; ++c) mean += row[c] / static_cast<double>(columns);
      for (int64_t c = 0; c < columns; ++c) variance += (row[c] - mean) * (row[c] - mean);
      const double scale = 1 / std::sqrt(variance / static_cast<double>(columns) + 1e-5);
      for (int64_t c = 0; c < columns; ++c) {
        const double expected = (row[c] - mean) * scale * weight.floats[c] + bias.floats[c];
        const int64_t at = r * x.stride + c;
        const double found = bf16() ? FromBf16(narrow[at]) : wide[at];
        const double tolerance = bf16() ? 0.005 : 2e-5;
        ASSERT_NEAR(found, expected, tolerance * (1 + std::abs(expected))) << columns;
      }
    }
  }
}

TEST_P(TextKernelsTest, RmsNormIsItsDefinition) {
  for (const int64_t columns : {1, 7, 16, 48, 100, 768}) {
    const Rows x(false, 4, columns, 8);
    const Rows weight(false, 1, columns, 9);
    std::vector<float> wide(4 * x.stride);
    std::vector<uint16_t> narrow(4 * x.stride);
    const NormCall call{.type = type(),
                        .x = x.floats.data(),
                        .weight = weight.floats.data(),
                        .output = bf16() ? static_cast<void*>(narrow.data()) : wide.data(),
                        .columns = columns,
                        .stride = x.stride,
                        .epsilon = 1e-3f};
    kernels().rms_norm(call, 0, 4);
    for (int64_t r = 0; r < 4; ++r) {
      double squares = 0;
      const float* row = x.floats.data() + r * x.stride;
      for (int64_t c = 0; c < columns; ++c) squares += double{row[c]} * row[c];
      const double scale = 1 / std::sqrt(squares / static_cast<double>(columns) + 1e-3);
      for (int64_t c = 0; c < columns; ++c) {
        const double expected = row[c] * scale * weight.floats[c];
        const int64_t at = r * x.stride + c;
        const double found = bf16() ? FromBf16(narrow[at]) : wide[at];
        const double tolerance = bf16() ? 0.005 : 1e-5;
        ASSERT_NEAR(found, expected, tolerance * (1 + std::abs(expected))) << columns;
      }
    }
  }
}

TEST_P(TextKernelsTest, RopeTurnsPairs) {
  constexpr int64_t kTokens = 5, kHeads = 3;
  for (const int64_t dim : {2, 10, 64, 128}) {
    for (const auto pairs : {RopeCall::Pairs::kHalves, RopeCall::Pairs::kNeighbours}) {
      const Rows before(false, kTokens, kHeads * dim, 14);
      std::vector<float> x = before.floats, cos, sin;
      for (int64_t i = 0; i < kTokens * dim / 2; ++i) {
        cos.push_back(std::cos(static_cast<float>(i)));
        sin.push_back(std::sin(static_cast<float>(i)));
      }
      const RopeCall call{.pairs = pairs,
                          .x = x.data(),
                          .stride = before.stride,
                          .heads = kHeads,
                          .head_dim = dim,
                          .cos = cos.data(),
                          .sin = sin.data()};
      kernels().rope(call, 0, 2);
      kernels().rope(call, 2, kTokens);
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t i = 0; i < kHeads * dim / 2; ++i) {
          const int64_t head = i / (dim / 2) * dim, pair = i % (dim / 2);
          const bool halves = pairs == RopeCall::Pairs::kHalves;
          const int64_t at = t * before.stride + head + (halves ? pair : 2 * pair);
          const int64_t other = halves ? at + dim / 2 : at + 1;
          const double c = cos[t * dim / 2 + pair], s = sin[t * dim / 2 + pair];
          const double a = before.floats[at], b = before.floats[other];
          ASSERT_NEAR(x[at], a * c - b * s, 1e-6) << dim << " token " << t << " pair " << i;
          ASSERT_NEAR(x[other], b * c + a * s, 1e-6) << dim << " token " << t << " pair " << i;
        }
      }
    }
  }
}

TEST_P(TextKernelsTest, GateMultipliesTheActivatedHalfWithTheOther) {
  for (const int64_t columns : {1, 7, 16, 77, 256}) {
    const Rows x(false, 3, 2 * columns, 15);
    const int64_t stride = PaddedColumns(columns);
    for (const TextActivation activation : {TextActivation::kSilu, TextActivation::kGeluTanh}) {
      std::vector<float> wide(3 * stride);
      std::vector<uint16_t> narrow(3 * stride);
      const GateCall call{.type = type(),
                          .activation = activation,
                          .x = x.floats.data(),
                          .x_stride = x.stride,
                          .columns = columns,
                          .output = bf16() ? static_cast<void*>(narrow.data()) : wide.data(),
                          .output_stride = stride};
      kernels().gate(call, 0, 3);
      for (int64_t r = 0; r < 3; ++r) {
        for (int64_t c = 0; c < stride; ++c) {
          const float* row = x.floats.data() + r * x.stride;
          const double expected =
              c < columns ? Reference(activation, row[c]) * row[columns + c] : 0;
          const double found = bf16() ? FromBf16(narrow[r * stride + c]) : wide[r * stride + c];
          const double tolerance = bf16() ? 0.005 : 2e-6;
          ASSERT_NEAR(found, expected, tolerance * (1 + std::abs(expected))) << columns;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, TextKernelsTest, ::testing::ValuesIn(Cases()), NameOf);

TEST(FloatConversionTest, Bf16RoundsToNearestEven) {
  EXPECT_EQ(ToBf16(1.0f), 0x3f80);
  EXPECT_EQ(ToBf16(1.00390625f), 0x3f80);  // half way to the next: to the even one
  EXPECT_EQ(ToBf16(1.01171875f), 0x3f82);
  EXPECT_TRUE(std::isnan(FromBf16(ToBf16(std::nanf("")))));
}

TEST(FloatConversionTest, Float16GoesThereAndBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = FromFloat16(static_cast<uint16_t>(bits));
    if (std::isnan(value)) continue;
    ASSERT_EQ(ToFloat16(value), bits);
  }
  EXPECT_EQ(ToFloat16(1.0f + 0x1p-11f), 0x3c00);  // half way: to the even one
  EXPECT_EQ(ToFloat16(1.0f + 3 * 0x1p-11f), 0x3c02);
  EXPECT_EQ(ToFloat16(65519.0f), 0x7bff);
  EXPECT_EQ(ToFloat16(65520.0f), 0x7c00);
  EXPECT_EQ(ToFloat16(0x1p-25f), 0);
}

}  // namespace
}  // namespace hanmo
