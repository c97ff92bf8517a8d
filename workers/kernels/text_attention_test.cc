// Attention over a paged cache; the other text kernels are in text_kernels_test.cc.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "workers/kernels/testing/text_kernel_test.h"
#include "workers/kernels/text_kernels.h"

namespace hanmo {
namespace {

// One sample's cache in a pool of pages, written by WriteCache; everything else in it is NaN.
struct Cache {
  Cache(WeightType type, int64_t heads, int64_t dim, std::vector<int32_t> page_table)
      : pages(std::move(page_table)), heads(heads), dim(dim), type(type) {
    const int64_t count = 1 + *std::max_element(pages.begin(), pages.end());
    const size_t size = WeightSize(type);
    keys.assign(count * heads * dim * kPageTokens * size, '\xff');
    values.assign(count * heads * ValueWidth(dim) * kPageTokens * size, '\xff');
  }
  void Write(int64_t position, const float* key, const float* value) {
    const int64_t page = pages[position / kPageTokens];
    const int64_t size = static_cast<int64_t>(WeightSize(type));
    WriteCache({type, heads, dim, keys.data() + page * heads * dim * kPageTokens * size,
                values.data() + page * heads * ValueWidth(dim) * kPageTokens * size,
                position % kPageTokens},
               key, value);
  }
  std::vector<char> keys, values;
  std::vector<int32_t> pages;
  int64_t heads, dim;
  WeightType type;
};

// As the cache keeps it.
float Stored(WeightType type, float value) {
  switch (type) {
    case WeightType::kFloat16:
      return FromFloat16(ToFloat16(value));
    case WeightType::kBFloat16:
      return FromBf16(ToBf16(value));
    case WeightType::kFloat32:
      break;
  }
  return value;
}

// What token t reads in each of the tests below.
using Ranges = std::vector<SlotRange>;

struct AttentionShape {
  int64_t heads, kv_heads, dim;
};

class TextAttentionTest : public TextKernelTest {
 protected:
  static constexpr int64_t kTokens = 90;
  static constexpr float kScale = 0.25f;

  struct Input {
    Input(bool bf16, const AttentionShape& shape)
        : q(bf16, kTokens, shape.heads * shape.dim, 11),
          k(bf16, kTokens, shape.kv_heads * shape.dim, 12),
          v(bf16, kTokens, shape.kv_heads * shape.dim, 13) {}
    Rows q, k, v;
  };

  // Token t is written to slot (t * 7) % 90, so that slots are no positions.
  static int64_t SlotOf(int64_t t) { return t * 7 % kTokens; }
  Cache Fill(const Input& in, const AttentionShape& shape, std::vector<int32_t> pages) const {
    Cache cache(type(), shape.kv_heads, shape.dim, std::move(pages));
    for (int64_t t = 0; t < kTokens; ++t) {
      cache.Write(SlotOf(t), in.k.floats.data() + t * in.k.stride,
                  in.v.floats.data() + t * in.v.stride);
    }
    return cache;
  }

  std::vector<float> Attend(const Input& in, const AttentionShape& shape, const Cache& cache,
                            const std::vector<Ranges>& reads) const {
    const std::vector<const int32_t*> tables(kTokens, cache.pages.data());
    Ranges ranges;
    std::vector<int64_t> first = {0};
    int64_t longest = 0;
    for (const Ranges& some : reads) {
      int64_t slots = 0;
      for (const SlotRange& range : some) slots += TouchedSlots(range);
      longest = std::max(longest, slots);
      ranges.insert(ranges.end(), some.begin(), some.end());
      first.push_back(static_cast<int64_t>(ranges.size()));
    }
    std::vector<float> output(kTokens * in.q.stride, 0.0f);
    std::vector<float> scratch(AttentionScratch(longest, shape.dim));
    const AttentionCall call{.type = type(),
                             .heads = shape.heads,
                             .kv_heads = shape.kv_heads,
                             .head_dim = shape.dim,
                             .value_width = ValueWidth(shape.dim),
                             .scale = kScale,
                             .query = in.q.floats.data(),
                             .query_stride = in.q.stride,
                             .ranges = ranges.data(),
                             .first_range = first.data(),
                             .page_tables = tables.data(),
                             .keys = cache.keys.data(),
                             .values = cache.values.data(),
                             .output = output.data(),
                             .output_stride = in.q.stride};
    kernels().attention(call, 0, kTokens * shape.heads, scratch.data());
    return output;
  }

  // Every element of one token and head.
  void ExpectDefinition(const Input& in, const AttentionShape& shape, const Ranges& reads,
                        int64_t token, int64_t head, const std::vector<float>& output) const {
    std::vector<int64_t> seen;
    for (int64_t t = 0; t < kTokens; ++t) {
      for (const SlotRange& range : reads) {
        if (SlotOf(t) >= range.begin && SlotOf(t) < range.end) seen.push_back(t);
      }
    }
    const int64_t kv = head / (shape.heads / shape.kv_heads) * shape.dim;
    std::vector<double> weights;
    double total = 0;
    for (const int64_t s : seen) {
      double score = 0;
      for (int64_t d = 0; d < shape.dim; ++d) {
        const double key = Stored(type(), in.k.floats[s * in.k.stride + kv + d]);
        score += in.q.floats[token * in.q.stride + head * shape.dim + d] * key;
      }
      weights.push_back(std::exp(kScale * score));
      total += weights.back();
    }
    for (int64_t d = 0; d < shape.dim; ++d) {
      double expected = 0;
      for (size_t i = 0; i < seen.size(); ++i) {
        const double value = Stored(type(), in.v.floats[seen[i] * in.v.stride + kv + d]);
        expected += weights[i] / total * value;
      }
      const int64_t at = token * in.q.stride + head * shape.dim + d;
      const auto* narrow = reinterpret_cast<const uint16_t*>(output.data());
      const double found = bf16() ? FromBf16(narrow[at]) : output[at];
      const double tolerance = bf16() ? 0.006 : 5e-6;
      ASSERT_NEAR(found, expected, tolerance * (1 + std::abs(expected)))
          << "token " << token << " head " << head << " of " << shape.dim;
    }
  }
};

TEST_P(TextAttentionTest, IsItsDefinitionWhereverThePagesLie) {
  for (const AttentionShape& shape :
       {AttentionShape{3, 3, 5}, {3, 3, 16}, {6, 2, 64}, {4, 1, 80}}) {
    const Input in(bf16(), shape);
    std::vector<Ranges> reads;
    for (int32_t t = 0; t < kTokens; ++t) reads.push_back({{0, t + 1}});
    const std::vector<float> output = Attend(in, shape, Fill(in, shape, {4, 0, 2, 5, 1, 3}), reads);
    const std::vector<float> elsewhere =
        Attend(in, shape, Fill(in, shape, {0, 1, 2, 3, 4, 5}), reads);
    ASSERT_EQ(std::memcmp(output.data(), elsewhere.data(), output.size() * sizeof(float)), 0);
    for (const int64_t t : {0, 15, 16, 63, 64, 89}) {
      for (int64_t h = 0; h < shape.heads; ++h) ExpectDefinition(in, shape, reads[t], t, h, output);
    }
  }
}

TEST_P(TextAttentionTest, SeesItsRangesAndNothingElse) {
  const AttentionShape shape = {4, 2, 24};
  const Input in(bf16(), shape);
  // Inside a page, across pages, whole pages, single slots, many ranges, not in order of the slots.
  const std::vector<Ranges> kinds = {
      {{3, 9}},
      {{14, 18}},
      {{16, 48}},
      {{89, 90}},
      {{0, 20}, {33, 34}, {47, 65}},
      {{70, 90}, {5, 6}},
      {{0, 3}, {11, 14}, {22, 25}, {33, 36}, {44, 47}, {55, 58}, {66, 69}, {77, 80}}};
  std::vector<Ranges> reads;
  for (int64_t t = 0; t < kTokens; ++t) reads.push_back(kinds[t % kinds.size()]);
  const std::vector<float> output = Attend(in, shape, Fill(in, shape, {4, 0, 2, 5, 1, 3}), reads);
  for (int64_t t = 0; t < 14; ++t) {
    for (int64_t h = 0; h < shape.heads; ++h) ExpectDefinition(in, shape, reads[t], t, h, output);
  }
}

INSTANTIATE_TEST_SUITE_P(Paths, TextAttentionTest, ::testing::ValuesIn(Cases()), NameOf);

}  // namespace
}  // namespace hanmo
