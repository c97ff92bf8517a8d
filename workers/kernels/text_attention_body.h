// Attention over a paged cache; see text_math.h.
#ifndef HANMO_WORKERS_KERNELS_TEXT_ATTENTION_BODY_H_
#define HANMO_WORKERS_KERNELS_TEXT_ATTENTION_BODY_H_

#include <cstdint>

#include "workers/kernels/text_kernels.h"
#include "workers/kernels/text_math.h"

namespace hanmo {

#define HANMO_UNROLL _Pragma("GCC unroll 16")

template <class V>
struct TextAttention {
  using Math = TextMath<V>;
  using Vector = typename V::Vector;

  // Scores of the 16 tokens of each of kPages pages; the pages' sums hide each other's latency.
  template <WeightType kType, int kPages>
  static void ScorePages(const AttentionCall& call, const float* query, const char* const* keys,
                         float* scores) {
    constexpr int kVectors = static_cast<int>(kPageTokens) / V::kWidth;
    Vector sums[kPages][kVectors];
    HANMO_UNROLL for (int p = 0; p < kPages; ++p) {
      HANMO_UNROLL for (int v = 0; v < kVectors; ++v) sums[p][v] = V::Set(0.0f);
    }
    for (int64_t d = 0; d < call.head_dim; ++d) {
      const Vector q = V::Set(query[d]);
      HANMO_UNROLL for (int p = 0; p < kPages; ++p) {
        HANMO_UNROLL for (int v = 0; v < kVectors; ++v) {
          const Vector k = Math::template LoadAs<kType>(keys[p], d * kPageTokens + v * V::kWidth);
          sums[p][v] = V::Fma(q, k, sums[p][v]);
        }
      }
    }
    for (int p = 0; p < kPages; ++p) {
      for (int v = 0; v < kVectors; ++v) {
        V::Store(scores + p * kPageTokens + v * V::kWidth, V::Mul(sums[p][v], V::Set(call.scale)));
      }
    }
  }

  // Of one token and head.
  struct Seen {
    const int32_t* pages;
    const SlotRange* ranges;
    const SlotRange* ranges_end;
    int64_t kv_head;
  };

  // The scores of all pages that the ranges touch, page after page. Returns their number of slots.
  template <WeightType kType>
  static int64_t ScoreRanges(const AttentionCall& call, const Seen& seen, const float* query,
                             float* scores) {
    constexpr int kTogether = 4;
    const int64_t page_bytes = call.head_dim * kPageTokens * WeightSize(kType);
    const char* keys[kTogether];
    int64_t waiting = 0;
    float* next = scores;
    for (const SlotRange* range = seen.ranges; range != seen.ranges_end; ++range) {
      for (int64_t p = range->begin / kPageTokens; p * kPageTokens < range->end; ++p) {
        keys[waiting++] = static_cast<const char*>(call.keys) +
                          (seen.pages[p] * call.kv_heads + seen.kv_head) * page_bytes;
        if (waiting < kTogether) continue;
        ScorePages<kType, kTogether>(call, query, keys, next);
        next += kTogether * kPageTokens;
        waiting = 0;
      }
    }
    for (int64_t i = 0; i < waiting; ++i, next += kPageTokens) {
      ScorePages<kType, 1>(call, query, keys + i, next);
    }
    return next - scores;
  }

  // Slots of touched pages that are in no range count as nothing.
  static void HideOthers(const Seen& seen, float* scores) {
    for (const SlotRange* range = seen.ranges; range != seen.ranges_end; ++range) {
      const int64_t before = range->begin % kPageTokens;
      int64_t i = before + range->end - range->begin;
      for (int64_t hidden = 0; hidden < before; ++hidden) scores[hidden] = -1e30f;
      for (; i % kPageTokens != 0; ++i) scores[i] = -1e30f;
      scores += i;
    }
  }

  // Softmax without its division, over whole pages. Returns the sum.
  static float Exponentials(float* scores, int64_t slots) {
    Vector most = V::Load(scores);
    for (int64_t t = V::kWidth; t < slots; t += V::kWidth) most = V::Max(most, V::Load(scores + t));
    float lane[V::kWidth];
    V::Store(lane, most);
    float max = lane[0];
    for (int i = 1; i < V::kWidth; ++i) max = lane[i] > max ? lane[i] : max;
    Vector sum = V::Set(0.0f);
    for (int64_t t = 0; t < slots; t += V::kWidth) {
      const Vector e = Math::Exp(V::Sub(V::Load(scores + t), V::Set(max)));
      V::Store(scores + t, e);
      sum = V::Add(sum, e);
    }
    return Math::Total(sum);
  }

  // out[0, kVectors) = Σ weight[slot] · value[slot], in the order of the ranges.
  template <WeightType kType, int kVectors>
  static void MixValues(const AttentionCall& call, const Seen& seen, int64_t column,
                        const float* weights, float* out) {
    Vector sums[kVectors];
    HANMO_UNROLL for (int v = 0; v < kVectors; ++v) sums[v] = V::Set(0.0f);
    for (const SlotRange* range = seen.ranges; range != seen.ranges_end; ++range) {
      for (int64_t slot = range->begin; slot < range->end; weights += kPageTokens) {
        const int64_t page = seen.pages[slot / kPageTokens], at = slot % kPageTokens;
        const int64_t left = at + range->end - slot;
        const int64_t end = left < kPageTokens ? left : kPageTokens;
        const int64_t first =
            (page * call.kv_heads + seen.kv_head) * kPageTokens * call.value_width + column;
        for (int64_t t = at; t < end; ++t) {
          const Vector weight = V::Set(weights[t]);
          HANMO_UNROLL for (int v = 0; v < kVectors; ++v) {
            const Vector value = Math::template LoadAs<kType>(
                call.values, first + t * call.value_width + v * V::kWidth);
            sums[v] = V::Fma(weight, value, sums[v]);
          }
        }
        slot += end - at;
      }
    }
    for (int v = 0; v < kVectors; ++v) V::Store(out + column + v * V::kWidth, sums[v]);
  }

  template <WeightType kType>
  static void AttendOne(const AttentionCall& call, int64_t token, int64_t head, float* scratch) {
    const Seen seen = {call.page_tables[token], call.ranges + call.first_range[token],
                       call.ranges + call.first_range[token + 1],
                       head / (call.heads / call.kv_heads)};
    const float* query = call.query + token * call.query_stride + head * call.head_dim;
    const int64_t slots = ScoreRanges<kType>(call, seen, query, scratch);
    HideOthers(seen, scratch);
    const float sum = Exponentials(scratch, slots);
    float* mixed = scratch + slots;
    int64_t column = 0;
    for (; column + 4 * V::kWidth <= call.value_width; column += 4 * V::kWidth) {
      MixValues<kType, 4>(call, seen, column, scratch, mixed);
    }
    for (; column < call.value_width; column += V::kWidth) {
      MixValues<kType, 1>(call, seen, column, scratch, mixed);
    }
    const int64_t at = token * call.output_stride + head * call.head_dim;
    for (int64_t d = 0; d < call.head_dim; ++d) {
      Math::StoreOne(call.type, call.output, at + d, mixed[d] / sum);
    }
  }

  template <WeightType kType>
  static void AttentionOf(const AttentionCall& call, int64_t begin, int64_t end, float* scratch) {
    for (int64_t item = begin; item < end; ++item) {
      AttendOne<kType>(call, item / call.heads, item % call.heads, scratch);
    }
  }

  static void Attention(const AttentionCall& call, int64_t begin, int64_t end, float* scratch) {
    switch (call.type) {
      case WeightType::kFloat32:
        return AttentionOf<WeightType::kFloat32>(call, begin, end, scratch);
      case WeightType::kFloat16:
        return AttentionOf<WeightType::kFloat16>(call, begin, end, scratch);
      case WeightType::kBFloat16:
        return AttentionOf<WeightType::kBFloat16>(call, begin, end, scratch);
    }
  }
};

#undef HANMO_UNROLL

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_TEXT_ATTENTION_BODY_H_
