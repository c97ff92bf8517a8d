// The kernels of text_kernels.h for one vector type; see text_math.h.
#ifndef HANMO_WORKERS_KERNELS_TEXT_KERNELS_BODY_H_
#define HANMO_WORKERS_KERNELS_TEXT_KERNELS_BODY_H_

#include <cstdint>

#include "workers/kernels/text_attention_body.h"
#include "workers/kernels/text_kernels.h"
#include "workers/kernels/text_linear_body.h"
#include "workers/kernels/text_math.h"

namespace hanmo {

template <class V>
struct TextKernelBody {
  using Math = TextMath<V>;
  using Vector = typename V::Vector;

  // ---- norms ---------------------------------------------------------------------------------

  static void LayerNorm(const NormCall& call, int64_t begin, int64_t end) {
    const int64_t whole = call.columns / V::kWidth * V::kWidth;
    const float count = static_cast<float>(call.columns);
    for (int64_t row = begin; row < end; ++row) {
      const float* x = call.x + row * call.stride;
      Vector sum = V::Set(0.0f);
      for (int64_t i = 0; i < whole; i += V::kWidth) sum = V::Add(sum, V::Load(x + i));
      float total = Math::Total(sum);
      for (int64_t i = whole; i < call.columns; ++i) total += x[i];
      const float mean = total / count;
      Vector squares = V::Set(0.0f);
      for (int64_t i = 0; i < whole; i += V::kWidth) {
        const Vector d = V::Sub(V::Load(x + i), V::Set(mean));
        squares = V::Fma(d, d, squares);
      }
      total = Math::Total(squares);
      for (int64_t i = whole; i < call.columns; ++i) total += (x[i] - mean) * (x[i] - mean);
      const float scale = 1.0f / __builtin_sqrtf(total / count + call.epsilon);
      for (int64_t i = 0; i < whole; i += V::kWidth) {
        const Vector d = V::Mul(V::Sub(V::Load(x + i), V::Set(mean)), V::Set(scale));
        Math::StoreActivations(call.type, call.output, row * call.stride + i,
                               V::Fma(d, V::Load(call.weight + i), V::Load(call.bias + i)));
      }
      for (int64_t i = whole; i < call.columns; ++i) {
        Math::StoreOne(call.type, call.output, row * call.stride + i,
                       (x[i] - mean) * scale * call.weight[i] + call.bias[i]);
      }
    }
  }

  static void RmsNorm(const NormCall& call, int64_t begin, int64_t end) {
    const int64_t whole = call.columns / V::kWidth * V::kWidth;
    for (int64_t row = begin; row < end; ++row) {
      const float* x = call.x + row * call.stride;
      Vector squares = V::Set(0.0f);
      for (int64_t i = 0; i < whole; i += V::kWidth) {
        squares = V::Fma(V::Load(x + i), V::Load(x + i), squares);
      }
      float total = Math::Total(squares);
      for (int64_t i = whole; i < call.columns; ++i) total += x[i] * x[i];
      const float mean = total / static_cast<float>(call.columns);
      const float scale = 1.0f / __builtin_sqrtf(mean + call.epsilon);
      for (int64_t i = 0; i < whole; i += V::kWidth) {
        const Vector d = V::Mul(V::Load(x + i), V::Set(scale));
        Math::StoreActivations(call.type, call.output, row * call.stride + i,
                               V::Mul(d, V::Load(call.weight + i)));
      }
      for (int64_t i = whole; i < call.columns; ++i) {
        Math::StoreOne(call.type, call.output, row * call.stride + i,
                       x[i] * scale * call.weight[i]);
      }
    }
  }

  // ---- rotary positions and gates ------------------------------------------------------------

  static void Rope(const RopeCall& call, int64_t begin, int64_t end) {
    const int64_t half = call.head_dim / 2;
    const bool halves = call.pairs == RopeCall::Pairs::kHalves;
    const int64_t step = halves ? 1 : 2, across = halves ? half : 1;
    for (int64_t token = begin; token < end; ++token) {
      const float* cos = call.cos + token * half;
      const float* sin = call.sin + token * half;
      for (int64_t head = 0; head < call.heads; ++head) {
        float* x = call.x + token * call.stride + head * call.head_dim;
        for (int64_t i = 0; i < half; ++i) {
          const float a = x[i * step], b = x[i * step + across];
          x[i * step] = a * cos[i] - b * sin[i];
          x[i * step + across] = b * cos[i] + a * sin[i];
        }
      }
    }
  }

  static void Gate(const GateCall& call, int64_t begin, int64_t end) {
    const int64_t whole = call.columns / V::kWidth * V::kWidth;
    for (int64_t row = begin; row < end; ++row) {
      const float* x = call.x + row * call.x_stride;
      const int64_t at = row * call.output_stride;
      for (int64_t i = 0; i < whole; i += V::kWidth) {
        const Vector gate = Math::Activate(call.activation, V::Load(x + i));
        Math::StoreActivations(call.type, call.output, at + i,
                               V::Mul(gate, V::Load(x + call.columns + i)));
      }
      if (whole == call.columns) continue;
      float lane[V::kWidth] = {};
      for (int64_t i = whole; i < call.columns; ++i) lane[i - whole] = x[i];
      V::Store(lane, Math::Activate(call.activation, V::Load(lane)));
      for (int64_t i = whole; i < call.columns; ++i) {
        Math::StoreOne(call.type, call.output, at + i, lane[i - whole] * x[call.columns + i]);
      }
    }
  }

  static constexpr TextKernels kTable = {
      &TextLinear<V>::Linear, &LayerNorm, &RmsNorm, &Rope, &Gate, &TextAttention<V>::Attention};
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_TEXT_KERNELS_BODY_H_
