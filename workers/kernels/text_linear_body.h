// Linear layers over packed weights; see text_math.h.
#ifndef HANMO_WORKERS_KERNELS_TEXT_LINEAR_BODY_H_
#define HANMO_WORKERS_KERNELS_TEXT_LINEAR_BODY_H_

#include <cstdint>

#include "workers/kernels/text_kernels.h"
#include "workers/kernels/text_math.h"

namespace hanmo {

#define HANMO_UNROLL _Pragma("GCC unroll 16")

template <class V>
struct TextLinear {
  using Math = TextMath<V>;
  using Vector = typename V::Vector;

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
      HANMO_UNROLL for (int v = 0; v < kVectors; ++v) w[v] =
          Math::template LoadAs<kType>(weights, v * V::kWidth);
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

  static void Finish(const LinearCall& call, int64_t row, int64_t column, Vector sum) {
    if (call.bias != nullptr) sum = V::Add(sum, V::Load(call.bias + column));
    sum = Math::Activate(call.activation, sum);
    const int64_t at = row * call.output_stride + column;
    if (call.output_as == LinearCall::Output::kActivations) {
      Math::StoreActivations(call.weights.type, call.output, at, sum);
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
};

#undef HANMO_UNROLL

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_TEXT_LINEAR_BODY_H_
