// The kernels of text_kernels.h, written once over a vector type (simd_*.h) and compiled once per
// instruction set. Everything here depends on that type, so that no symbol of one instruction set
// can stand in for another's at link time; for the same reason nothing here calls inline functions
// of the standard library.
#ifndef HANMO_WORKERS_KERNELS_TEXT_KERNELS_BODY_H_
#define HANMO_WORKERS_KERNELS_TEXT_KERNELS_BODY_H_

#include <cstdint>

#include "workers/kernels/text_kernels.h"

namespace hanmo {

#define HANMO_UNROLL _Pragma("GCC unroll 16")

template <class V>
struct TextKernelBody {
  using Vector = typename V::Vector;

  // ---- elementwise ---------------------------------------------------------------------------

  // e^x to 2 ulp; below -87 the smallest normal numbers, which is zero beside any sum with a 1.
  static Vector Exp(Vector x) {
    x = V::Min(V::Max(x, V::Set(-87.0f)), V::Set(88.0f));
    const Vector n = V::Round(V::Mul(x, V::Set(1.44269504f)));
    // ln 2 in two parts: the first has few enough bits that n · 0.693359375 is exact.
    Vector r = V::Fma(n, V::Set(-0.693359375f), x);
    r = V::Fma(n, V::Set(2.12194440e-4f), r);
    // Taylor's series: |r| ≤ ln 2 / 2, so the first term left out is below 2^-27.
    Vector sum = V::Set(1.0f / 5040);
    sum = V::Fma(sum, r, V::Set(1.0f / 720));
    sum = V::Fma(sum, r, V::Set(1.0f / 120));
    sum = V::Fma(sum, r, V::Set(1.0f / 24));
    sum = V::Fma(sum, r, V::Set(1.0f / 6));
    sum = V::Fma(sum, r, V::Set(0.5f));
    sum = V::Fma(sum, r, V::Set(1.0f));
    sum = V::Fma(sum, r, V::Set(1.0f));
    return V::Scale2(sum, n);
  }

  // x / (1 + e^-y)
  static Vector Gate(Vector x, Vector y) {
    return V::Div(x, V::Add(V::Set(1.0f), Exp(V::Sub(V::Set(0.0f), y))));
  }

  // Abramowitz and Stegun 7.1.26: absolute error below 1.5e-7.
  static Vector Erf(Vector x) {
    const Vector z = V::CopySign(x, V::Set(1.0f));
    const Vector t = V::Div(V::Set(1.0f), V::Fma(z, V::Set(0.3275911f), V::Set(1.0f)));
    Vector sum = V::Set(1.061405429f);
    sum = V::Fma(sum, t, V::Set(-1.453152027f));
    sum = V::Fma(sum, t, V::Set(1.421413741f));
    sum = V::Fma(sum, t, V::Set(-0.284496736f));
    sum = V::Fma(sum, t, V::Set(0.254829592f));
    const Vector tail = V::Mul(V::Mul(sum, t), Exp(V::Sub(V::Set(0.0f), V::Mul(z, z))));
    return V::CopySign(V::Sub(V::Set(1.0f), tail), x);
  }

  static Vector Activate(Activation activation, Vector x) {
    switch (activation) {
      case Activation::kNone:
        return x;
      case Activation::kRelu:
        return V::Max(x, V::Set(0.0f));
      case Activation::kSilu:
        return Gate(x, x);
      case Activation::kGeluTanh: {
        // (1 + tanh u) / 2 = 1 / (1 + e^-2u), with 2u = 2 √(2/π) x (1 + 0.044715 x²)
        const Vector inner = V::Fma(V::Mul(x, x), V::Set(0.044715f), V::Set(1.0f));
        return Gate(x, V::Mul(V::Mul(x, V::Set(1.59576912f)), inner));
      }
      case Activation::kGeluErf: {
        const Vector half = V::Mul(x, V::Set(0.5f));
        return V::Fma(half, Erf(V::Mul(x, V::Set(0.707106781f))), half);
      }
    }
    return x;
  }

  // ---- linear --------------------------------------------------------------------------------

  template <int kRows, int kVectors>
  struct Sums {
    Vector at[kRows][kVectors];
  };

  // What one Multiply works on.
  struct Tile {
    const char* weights;
    int64_t row;
    int64_t fetch_ahead;  // bytes between the weights in use and those being fetched
  };
  // The processor's own prefetching ends at each 4 KiB page.
  static constexpr int64_t kFetchAhead = 4096;

  // kRows rows of `input` by kVectors vectors of columns. The weights of one step (one input, or a
  // pair of them in bfloat16) lie kPanelColumns columns apart.
  template <WeightType kType, int kRows, int kVectors>
  static void Multiply(const LinearCall& call, const Tile& tile, Sums<kRows, kVectors>& sums) {
    if constexpr (kType != WeightType::kBFloat16) {
      MultiplySingles<kType>(call, tile, sums);
    } else if constexpr (V::kBf16Activations) {
      MultiplyBf16Pairs(call, tile, sums);
    } else {
      MultiplyPairs(call, tile, sums);
    }
  }

  static void Fetch(const void* weights, int64_t bytes) {
    for (int64_t line = 0; line < bytes; line += 64) {
      // Into the second level: the first has no room to spare while it feeds the sums.
      __builtin_prefetch(static_cast<const char*>(weights) + line, 0, 2);
    }
  }

  template <int kRows, int kVectors>
  static void AddProducts(const float* x, int64_t stride, const Vector (&w)[kVectors],
                          Sums<kRows, kVectors>& sums) {
    HANMO_UNROLL for (int r = 0; r < kRows; ++r) {
      const Vector input = V::Set(x[r * stride]);
      HANMO_UNROLL for (int v = 0; v < kVectors; ++v) {
        sums.at[r][v] = V::Fma(input, w[v], sums.at[r][v]);
      }
    }
  }

  template <WeightType kType, int kRows, int kVectors>
  static void MultiplySingles(const LinearCall& call, const Tile& tile,
                              Sums<kRows, kVectors>& sums) {
    const float* x = static_cast<const float*>(call.input) + tile.row * call.input_stride;
    const char* weights = tile.weights;
    constexpr int64_t kStep = kPanelColumns * static_cast<int64_t>(WeightSize(kType));
    for (int64_t i = 0; i < call.weights.in; ++i, weights += kStep) {
      Fetch(weights + tile.fetch_ahead,
            kVectors * V::kWidth * static_cast<int64_t>(WeightSize(kType)));
      Vector w[kVectors];
      HANMO_UNROLL for (int v = 0; v < kVectors; ++v) w[v] = LoadAs<kType>(weights, v * V::kWidth);
      AddProducts(x + i, call.input_stride, w, sums);
    }
  }

  template <int kRows, int kVectors>
  static void MultiplyPairs(const LinearCall& call, const Tile& tile, Sums<kRows, kVectors>& sums) {
    const float* x = static_cast<const float*>(call.input) + tile.row * call.input_stride;
    const auto* pairs = reinterpret_cast<const uint16_t*>(tile.weights);
    for (int64_t i = 0; i < call.weights.in; i += 2, pairs += 2 * kPanelColumns) {
      Fetch(reinterpret_cast<const char*>(pairs) + tile.fetch_ahead, kVectors * V::kWidth * 4);
      Vector w[kVectors];
      HANMO_UNROLL for (int v = 0; v < kVectors; ++v) w[v] =
          V::LoadEvenBf16(pairs + 2 * v * V::kWidth);
      AddProducts(x + i, call.input_stride, w, sums);
      HANMO_UNROLL for (int v = 0; v < kVectors; ++v) w[v] =
          V::LoadOddBf16(pairs + 2 * v * V::kWidth);
      AddProducts(x + i + 1, call.input_stride, w, sums);
    }
  }

  template <int kRows, int kVectors>
  static void MultiplyBf16Pairs(const LinearCall& call, const Tile& tile,
                                Sums<kRows, kVectors>& sums) {
    const uint16_t* x = static_cast<const uint16_t*>(call.input) + tile.row * call.input_stride;
    const auto* pairs = reinterpret_cast<const uint16_t*>(tile.weights);
    for (int64_t i = 0; i < call.weights.in; i += 2, pairs += 2 * kPanelColumns) {
      Fetch(reinterpret_cast<const char*>(pairs) + tile.fetch_ahead, kVectors * V::kWidth * 4);
      HANMO_UNROLL for (int r = 0; r < kRows; ++r) {
        uint32_t pair;
        __builtin_memcpy(&pair, x + r * call.input_stride + i, sizeof(pair));
        HANMO_UNROLL for (int v = 0; v < kVectors; ++v) {
          sums.at[r][v] = V::DotPair(sums.at[r][v], pairs + 2 * v * V::kWidth, pair);
        }
      }
    }
  }

  template <WeightType kType>
  static Vector LoadAs(const void* data, int64_t index) {
    if constexpr (kType == WeightType::kFloat32) {
      return V::Load(static_cast<const float*>(data) + index);
    } else if constexpr (kType == WeightType::kFloat16) {
      return V::LoadFloat16(static_cast<const uint16_t*>(data) + index);
    } else {
      return V::LoadBf16(static_cast<const uint16_t*>(data) + index);
    }
  }

  static void StoreActivations(WeightType type, void* data, int64_t index, Vector value) {
    if (V::kBf16Activations && type == WeightType::kBFloat16) {
      V::StoreBf16(static_cast<uint16_t*>(data) + index, value);
    } else {
      V::Store(static_cast<float*>(data) + index, value);
    }
  }

  static void Finish(const LinearCall& call, int64_t row, int64_t column, Vector sum) {
    if (call.bias != nullptr) sum = V::Add(sum, V::Load(call.bias + column));
    sum = Activate(call.activation, sum);
    const int64_t at = row * call.output_stride + column;
    if (call.output_as == LinearCall::Output::kActivations) {
      StoreActivations(call.weights.type, call.output, at, sum);
      return;
    }
    float* output = static_cast<float*>(call.output) + at;
    if (call.output_as == LinearCall::Output::kAddFloat32) sum = V::Add(sum, V::Load(output));
    V::Store(output, sum);
  }

  // kRows rows by all columns of one panel.
  template <WeightType kType, int kRows, int kVectors>
  static void Block(const LinearCall& call, int64_t panel, int64_t row) {
    constexpr int64_t kPairs = kType == WeightType::kBFloat16 ? 2 : 1;
    const int64_t inputs = (call.weights.in + kPairs - 1) / kPairs * kPairs;
    const int64_t element = WeightSize(kType);
    const int64_t panel_bytes = inputs * kPanelColumns * element;
    const char* weights = static_cast<const char*>(call.weights.data) + panel * panel_bytes;
    // The first rows bring a panel into the cache; while further rows use it, the next one comes.
    const int64_t ahead = row == 0 ? kFetchAhead : panel_bytes;
    constexpr int64_t kColumns = static_cast<int64_t>(kVectors) * V::kWidth;
    for (int64_t first = 0; first < kPanelColumns; first += kColumns) {
      Sums<kRows, kVectors> sums;
      HANMO_UNROLL for (int r = 0; r < kRows; ++r) {
        HANMO_UNROLL for (int v = 0; v < kVectors; ++v) sums.at[r][v] = V::Set(0.0f);
      }
      Multiply<kType, kRows, kVectors>(call, {weights + first * kPairs * element, row, ahead},
                                       sums);
      for (int r = 0; r < kRows; ++r) {
        for (int v = 0; v < kVectors; ++v) {
          Finish(call, row + r, panel * kPanelColumns + first + v * V::kWidth, sums.at[r][v]);
        }
      }
    }
  }

  template <WeightType kType, int kRows>
  static void Rest(const LinearCall& call, int64_t panel, int64_t row) {
    if constexpr (kRows > 0) {
      if (call.rows - row == kRows) {
        constexpr int kVectors = kRows == 1 ? V::kRowVectors : V::kBlockVectors;
        Block<kType, kRows, kVectors>(call, panel, row);
      } else {
        Rest<kType, kRows - 1>(call, panel, row);
      }
    }
  }

  template <WeightType kType>
  static void LinearOf(const LinearCall& call, int64_t begin, int64_t end) {
    for (int64_t panel = begin; panel < end; ++panel) {
      int64_t row = 0;
      for (; row + V::kBlockRows <= call.rows; row += V::kBlockRows) {
        Block<kType, V::kBlockRows, V::kBlockVectors>(call, panel, row);
      }
      Rest<kType, V::kBlockRows - 1>(call, panel, row);
    }
  }

  static void Linear(const LinearCall& call, int64_t begin, int64_t end) {
    switch (call.weights.type) {
      case WeightType::kFloat32:
        return LinearOf<WeightType::kFloat32>(call, begin, end);
      case WeightType::kFloat16:
        return LinearOf<WeightType::kFloat16>(call, begin, end);
      case WeightType::kBFloat16:
        return LinearOf<WeightType::kBFloat16>(call, begin, end);
    }
  }

  // ---- layer norm ----------------------------------------------------------------------------

  static float Total(Vector v) {
    float lane[V::kWidth];
    V::Store(lane, v);
    float total = 0;
    for (int i = 0; i < V::kWidth; ++i) total += lane[i];
    return total;
  }

  static void LayerNorm(const LayerNormCall& call, int64_t begin, int64_t end) {
    const int64_t whole = call.columns / V::kWidth * V::kWidth;
    const float count = static_cast<float>(call.columns);
    for (int64_t row = begin; row < end; ++row) {
      const float* x = call.x + row * call.stride;
      Vector sum = V::Set(0.0f);
      for (int64_t i = 0; i < whole; i += V::kWidth) sum = V::Add(sum, V::Load(x + i));
      float total = Total(sum);
      for (int64_t i = whole; i < call.columns; ++i) total += x[i];
      const float mean = total / count;
      Vector squares = V::Set(0.0f);
      for (int64_t i = 0; i < whole; i += V::kWidth) {
        const Vector d = V::Sub(V::Load(x + i), V::Set(mean));
        squares = V::Fma(d, d, squares);
      }
      total = Total(squares);
      for (int64_t i = whole; i < call.columns; ++i) total += (x[i] - mean) * (x[i] - mean);
      const float scale = 1.0f / __builtin_sqrtf(total / count + call.epsilon);
      for (int64_t i = 0; i < whole; i += V::kWidth) {
        const Vector d = V::Mul(V::Sub(V::Load(x + i), V::Set(mean)), V::Set(scale));
        StoreActivations(call.type, call.output, row * call.stride + i,
                         V::Fma(d, V::Load(call.weight + i), V::Load(call.bias + i)));
      }
      for (int64_t i = whole; i < call.columns; ++i) {
        StoreOne(call.type, call.output, row * call.stride + i,
                 (x[i] - mean) * scale * call.weight[i] + call.bias[i]);
      }
    }
  }

  static void StoreOne(WeightType type, void* data, int64_t index, float value) {
    if (V::kBf16Activations && type == WeightType::kBFloat16) {
      static_cast<uint16_t*>(data)[index] = ToBf16(value);
    } else {
      static_cast<float*>(data)[index] = value;
    }
  }

  // ---- attention -----------------------------------------------------------------------------

  // Scores of the 16 tokens of each of kPages pages; the pages' sums hide each other's latency.
  template <WeightType kType, int kPages>
  static void ScorePages(const AttentionCall& call, const float* query, const char* const* keys,
                         float* scores) {
    constexpr int kVectors = static_cast<int>(kPageTokens) / V::kWidth;
    Sums<kPages, kVectors> sums;
    HANMO_UNROLL for (int p = 0; p < kPages; ++p) {
      HANMO_UNROLL for (int v = 0; v < kVectors; ++v) sums.at[p][v] = V::Set(0.0f);
    }
    for (int64_t d = 0; d < call.head_dim; ++d) {
      const Vector q = V::Set(query[d]);
      HANMO_UNROLL for (int p = 0; p < kPages; ++p) {
        HANMO_UNROLL for (int v = 0; v < kVectors; ++v) {
          const Vector k = LoadAs<kType>(keys[p], d * kPageTokens + v * V::kWidth);
          sums.at[p][v] = V::Fma(q, k, sums.at[p][v]);
        }
      }
    }
    for (int p = 0; p < kPages; ++p) {
      for (int v = 0; v < kVectors; ++v) {
        V::Store(scores + p * kPageTokens + v * V::kWidth,
                 V::Mul(sums.at[p][v], V::Set(call.scale)));
      }
    }
  }

  // Softmax without its division; `scores` has whole pages, the tail beyond `context` counts as
  // nothing. Returns the sum.
  static float Exponentials(float* scores, int64_t context) {
    float max = scores[0];
    for (int64_t t = 1; t < context; ++t) max = scores[t] > max ? scores[t] : max;
    const int64_t padded = (context + kPageTokens - 1) / kPageTokens * kPageTokens;
    for (int64_t t = context; t < padded; ++t) scores[t] = -1e30f;
    Vector sum = V::Set(0.0f);
    for (int64_t t = 0; t < padded; t += V::kWidth) {
      const Vector e = Exp(V::Sub(V::Load(scores + t), V::Set(max)));
      V::Store(scores + t, e);
      sum = V::Add(sum, e);
    }
    return Total(sum);
  }

  // out[0, kVectors) = Σ weight[t] · value[t], positions in order.
  template <WeightType kType, int kVectors>
  static void MixValues(const AttentionCall& call, const int32_t* pages, int64_t head,
                        int64_t context, int64_t column, const float* weights, float* out) {
    Vector sums[kVectors];
    HANMO_UNROLL for (int v = 0; v < kVectors; ++v) sums[v] = V::Set(0.0f);
    const int64_t page_values = kPageTokens * call.value_width;
    for (int64_t begin = 0; begin < context; begin += kPageTokens) {
      const int64_t page = pages[begin / kPageTokens];
      const int64_t first = (page * call.heads + head) * page_values + column;
      const int64_t count = context - begin < kPageTokens ? context - begin : kPageTokens;
      for (int64_t t = 0; t < count; ++t) {
        const Vector weight = V::Set(weights[begin + t]);
        HANMO_UNROLL for (int v = 0; v < kVectors; ++v) {
          sums[v] = V::Fma(weight,
                           LoadAs<kType>(call.values, first + t * call.value_width + v * V::kWidth),
                           sums[v]);
        }
      }
    }
    for (int v = 0; v < kVectors; ++v) V::Store(out + column + v * V::kWidth, sums[v]);
  }

  template <WeightType kType>
  static void AttendOne(const AttentionCall& call, int64_t token, int64_t head, float* scratch) {
    const int64_t context = call.contexts[token];
    const int32_t* pages = call.page_tables[token];
    const float* query = call.query + token * call.query_stride + head * call.head_dim;
    const int64_t page_count = (context + kPageTokens - 1) / kPageTokens;
    const int64_t page_bytes = call.head_dim * kPageTokens * WeightSize(kType);
    constexpr int kTogether = 4;
    for (int64_t p = 0; p < page_count; p += kTogether) {
      const int64_t count = page_count - p < kTogether ? page_count - p : kTogether;
      const char* keys[kTogether];
      for (int64_t i = 0; i < count; ++i) {
        keys[i] =
            static_cast<const char*>(call.keys) + (pages[p + i] * call.heads + head) * page_bytes;
      }
      float* scores = scratch + p * kPageTokens;
      if (count == kTogether) {
        ScorePages<kType, kTogether>(call, query, keys, scores);
      } else {
        for (int64_t i = 0; i < count; ++i) {
          ScorePages<kType, 1>(call, query, keys + i, scores + i * kPageTokens);
        }
      }
    }
    const float sum = Exponentials(scratch, context);
    float* mixed = scratch + page_count * kPageTokens;
    int64_t column = 0;
    for (; column + 4 * V::kWidth <= call.value_width; column += 4 * V::kWidth) {
      MixValues<kType, 4>(call, pages, head, context, column, scratch, mixed);
    }
    for (; column < call.value_width; column += V::kWidth) {
      MixValues<kType, 1>(call, pages, head, context, column, scratch, mixed);
    }
    const int64_t at = token * call.output_stride + head * call.head_dim;
    for (int64_t d = 0; d < call.head_dim; ++d) {
      StoreOne(call.type, call.output, at + d, mixed[d] / sum);
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

  static constexpr TextKernels kTable = {&Linear, &LayerNorm, &Attention};
};

#undef HANMO_UNROLL

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_TEXT_KERNELS_BODY_H_
