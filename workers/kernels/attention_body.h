// The attention kernel, written once over an arithmetic: how elements lie in 32-bit words and how
// two vectors of words multiply into 16 float sums. Included by one file for each instruction set.
//
// Both products, q k^T and p v, are tiles of 8 rows by up to 48 columns: 24 sums, 3 vectors of the
// right operand and a broadcast of the left one stay in the 32 registers. The right operand comes
// in panels of 48 columns, depth after depth.
#ifndef HANMO_WORKERS_KERNELS_ATTENTION_BODY_H_
#define HANMO_WORKERS_KERNELS_ATTENTION_BODY_H_

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>

#include "workers/kernels/attention.h"

namespace hanmo {
// Internal to each including file: the linker must not merge code of different instruction sets.
namespace {

inline constexpr int64_t kLanes = 16;
inline constexpr int64_t kRows = 8;
inline constexpr int64_t kPanel = 48;
// Keys whose scores are in cache at a time, a multiple of kPanel.
inline constexpr int64_t kBlock = 480;

// 2^x for x ≤ 0, relative error below 1e-7; 0 below 2^-125, because denormal numbers are slow.
inline __m512 Exp2(__m512 x) {
  const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-125.0f), _CMP_GE_OQ);
  const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.54035304e-4f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.33335581e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(9.61812911e-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.55041087e-2f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(2.40226507e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(6.93147181e-1f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_maskz_scalef_ps(normal, p, n);
}

inline int64_t RoundUp(int64_t value, int64_t to) { return (value + to - 1) / to * to; }

template <class Arithmetic>
class AttentionBody {
  using Element = typename Arithmetic::Element;
  static constexpr int64_t kDepth = Arithmetic::kDepth;  // elements in a word

 public:
  static int64_t PackedWords(const AttentionHead& head) {
    return KeyWords(head) + ValueDepth(head) * RoundUp(head.width, kLanes);
  }

  static void Pack(const AttentionHead& head, const void* k, const void* v, uint32_t* packed) {
    const auto* keys = static_cast<const Element*>(k);
    const auto* values = static_cast<const Element*>(v);
    std::memset(packed, 0, sizeof(uint32_t) * PackedWords(head));
    auto* to = reinterpret_cast<Element*>(packed);
    for (int64_t key = 0; key < head.keys; ++key) {
      for (int64_t c = 0; c < head.width; ++c) {
        const int64_t word = WordAt(KeyDepth(head), head.keys, c / kDepth, key);
        to[word * kDepth + c % kDepth] = keys[key * head.k_stride + c];
      }
    }
    to = reinterpret_cast<Element*>(packed + KeyWords(head));
    for (int64_t key = 0; key < head.keys; ++key) {
      for (int64_t c = 0; c < head.width; ++c) {
        const int64_t word = WordAt(ValueDepth(head), head.width, key / kDepth, c);
        to[word * kDepth + key % kDepth] = values[key * head.v_stride + c];
      }
    }
  }

  static void Attend(const AttentionHead& head, const void* q, int64_t queries,
                     const uint32_t* packed, void* out) {
    const auto* from = static_cast<const Element*>(q);
    auto* to = static_cast<Element*>(out);
    for (int64_t row = 0; row < queries; row += kRows) {
      AttendTile(head, from + row * head.q_stride, std::min(kRows, queries - row), packed,
                 to + row * head.out_stride);
    }
  }

 private:
  static int64_t KeyDepth(const AttentionHead& head) { return (head.width + kDepth - 1) / kDepth; }
  static int64_t ValueDepth(const AttentionHead& head) { return (head.keys + kDepth - 1) / kDepth; }
  static int64_t KeyWords(const AttentionHead& head) {
    return KeyDepth(head) * RoundUp(head.keys, kLanes);
  }

  // Where a word of a matrix [depth, columns] lies in its panels; the last panel is narrower.
  static int64_t WordAt(int64_t depth, int64_t columns, int64_t at_depth, int64_t column) {
    const int64_t first = column / kPanel * kPanel;
    const int64_t wide = std::min(kPanel, RoundUp(columns - first, kLanes));
    return first * depth + at_depth * wide + (column - first);
  }

  struct Left {
    const uint32_t* words;
    int64_t stride;  // words from one row to the next
  };

  // sums[row][column] (+)= left[row][depth] * right[depth][column] over one panel.
  template <int kVectors>
  static void Panel(Left left, const uint32_t* right, int64_t depth, float* sums, int64_t stride,
                    bool add) {
    __m512 sum[kRows][kVectors];
    for (int row = 0; row < kRows; ++row) {
      for (int i = 0; i < kVectors; ++i) {
        sum[row][i] = add ? _mm512_loadu_ps(sums + row * stride + i * kLanes) : _mm512_setzero_ps();
      }
    }
    for (int64_t k = 0; k < depth; ++k, right += kVectors * kLanes) {
      __m512i column[kVectors];
      for (int i = 0; i < kVectors; ++i) column[i] = _mm512_loadu_si512(right + i * kLanes);
#pragma GCC unroll 8
      for (int row = 0; row < kRows; ++row) {
        const __m512i word = _mm512_set1_epi32(static_cast<int>(left.words[row * left.stride + k]));
        for (int i = 0; i < kVectors; ++i) {
          sum[row][i] = Arithmetic::Multiply(sum[row][i], word, column[i]);
        }
      }
    }
    for (int row = 0; row < kRows; ++row) {
      for (int i = 0; i < kVectors; ++i) {
        _mm512_storeu_ps(sums + row * stride + i * kLanes, sum[row][i]);
      }
    }
  }

  // The same over columns [first, first + count) of a packed matrix of `columns`; `first` starts a
  // panel. `skip`: words of depth to leave out at the front.
  struct Right {
    const uint32_t* words;
    int64_t depth;    // of the packed matrix
    int64_t columns;  // of the packed matrix
    int64_t skip;
  };
  static void Multiply(Left left, Right right, int64_t first, int64_t count, int64_t depth,
                       float* sums, int64_t stride, bool add) {
    for (int64_t at = first; at < first + count; at += kPanel) {
      const int64_t wide = std::min(kPanel, RoundUp(right.columns - at, kLanes));
      const uint32_t* words = right.words + at * right.depth + right.skip * wide;
      float* to = sums + (at - first);
      if (wide == 3 * kLanes) {
        Panel<3>(left, words, depth, to, stride, add);
      } else if (wide == 2 * kLanes) {
        Panel<2>(left, words, depth, to, stride, add);
      } else {
        Panel<1>(left, words, depth, to, stride, add);
      }
    }
  }

  // What a row of queries has gathered: the largest score so far, in powers of two, and the sum of
  // weights relative to it.
  struct Softmax {
    float largest = -std::numeric_limits<float>::infinity();
    float sum = 0;
  };

  // Turns `count` scores into weights; returns the factor for what was gathered before.
  static float Weigh(const float* scores, int64_t count, float scale, Softmax& row,
                     Element* weights) {
    const __m512 unscored = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
    __m512 largest = unscored;
    for (int64_t i = 0; i < count; i += kLanes) {
      largest = _mm512_max_ps(largest, _mm512_mask_loadu_ps(unscored, Mask(count - i), scores + i));
    }
    const float before = row.largest;
    row.largest = std::max(before, _mm512_reduce_max_ps(largest) * scale);
    const __m512 origin = _mm512_set1_ps(row.largest);
    const __m512 by = _mm512_set1_ps(scale);
    __m512 sum = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += kLanes) {
      const __mmask16 mask = Mask(count - i);
      const __m512 score = _mm512_maskz_loadu_ps(mask, scores + i);
      const __m512 weight = _mm512_maskz_mov_ps(mask, Exp2(_mm512_fmsub_ps(score, by, origin)));
      sum = _mm512_add_ps(sum, weight);
      Arithmetic::Store(weights + i, weight);
    }
    const float factor = _mm512_cvtss_f32(Exp2(_mm512_set1_ps(before - row.largest)));
    row.sum = row.sum * factor + _mm512_reduce_add_ps(sum);
    return factor;
  }

  static __mmask16 Mask(int64_t left) {
    return static_cast<__mmask16>(left >= kLanes ? 0xffff : (1 << left) - 1);
  }

  static void AttendTile(const AttentionHead& head, const Element* q, int64_t rows,
                         const uint32_t* packed, Element* out) {
    alignas(64) uint32_t query[kRows * kMaxAttentionWidth / kDepth] = {};
    alignas(64) float scores[kRows * kBlock];
    alignas(64) Element weights[kRows * kBlock];
    alignas(64) float gathered[kRows * kMaxAttentionWidth];
    Softmax softmax[kRows];
    const int64_t wide = RoundUp(head.width, kLanes);
    const int64_t key_depth = KeyDepth(head);
    for (int64_t row = 0; row < rows; ++row) {
      std::memcpy(query + row * key_depth, q + row * head.q_stride, sizeof(Element) * head.width);
    }
    const Right keys = {packed, key_depth, head.keys, 0};
    Right values = {packed + KeyWords(head), ValueDepth(head), head.width, 0};
    constexpr float kLog2E = 1.44269504f;
    for (int64_t first = 0; first < head.keys; first += kBlock) {
      const int64_t count = std::min(kBlock, head.keys - first);
      Multiply({query, key_depth}, keys, first, count, key_depth, scores, kBlock, false);
      for (int64_t row = 0; row < kRows; ++row) {
        const float factor = Weigh(scores + row * kBlock, count, head.scale * kLog2E, softmax[row],
                                   weights + row * kBlock);
        if (first == 0) continue;
        for (int64_t c = 0; c < wide; ++c) gathered[row * wide + c] *= factor;
      }
      values.skip = first / kDepth;
      Multiply({reinterpret_cast<const uint32_t*>(weights), kBlock / kDepth}, values, 0, head.width,
               (count + kDepth - 1) / kDepth, gathered, wide, first > 0);
    }
    for (int64_t row = 0; row < rows; ++row) {
      const __m512 inverse = _mm512_set1_ps(1.0f / softmax[row].sum);
      alignas(64) Element result[kMaxAttentionWidth];
      for (int64_t c = 0; c < wide; c += kLanes) {
        Arithmetic::Store(result + c,
                          _mm512_mul_ps(_mm512_loadu_ps(gathered + row * wide + c), inverse));
      }
      std::memcpy(out + row * head.out_stride, result, sizeof(Element) * head.width);
    }
  }
};

template <class Arithmetic>
constexpr AttentionKernel MakeAttentionKernel() {
  using Body = AttentionBody<Arithmetic>;
  return {&Body::PackedWords, &Body::Pack, &Body::Attend};
}

}  // namespace
}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_ATTENTION_BODY_H_
