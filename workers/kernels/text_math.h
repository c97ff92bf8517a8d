// Vector arithmetic of the text kernels, written once over a vector type (simd_*.h) and compiled
// once per instruction set. Everything here and in the text_*_body.h files depends on that type, so
// that no symbol of one instruction set can stand in for another's at link time; for the same
// reason nothing here calls inline functions of the standard library.
#ifndef HANMO_WORKERS_KERNELS_TEXT_MATH_H_
#define HANMO_WORKERS_KERNELS_TEXT_MATH_H_

#include <cstdint>

#include "workers/kernels/text_kernels.h"

namespace hanmo {

template <class V>
struct TextMath {
  using Vector = typename V::Vector;

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
  static Vector TimesSigmoid(Vector x, Vector y) {
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

  static Vector Activate(TextActivation activation, Vector x) {
    switch (activation) {
      case TextActivation::kNone:
        return x;
      case TextActivation::kRelu:
        return V::Max(x, V::Set(0.0f));
      case TextActivation::kSilu:
        return TimesSigmoid(x, x);
      case TextActivation::kGeluTanh: {
        // (1 + tanh u) / 2 = 1 / (1 + e^-2u), with 2u = 2 √(2/π) x (1 + 0.044715 x²)
        const Vector inner = V::Fma(V::Mul(x, x), V::Set(0.044715f), V::Set(1.0f));
        return TimesSigmoid(x, V::Mul(V::Mul(x, V::Set(1.59576912f)), inner));
      }
      case TextActivation::kGeluErf: {
        const Vector half = V::Mul(x, V::Set(0.5f));
        return V::Fma(half, Erf(V::Mul(x, V::Set(0.707106781f))), half);
      }
    }
    return x;
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

  static void StoreOne(WeightType type, void* data, int64_t index, float value) {
    if (V::kBf16Activations && type == WeightType::kBFloat16) {
      static_cast<uint16_t*>(data)[index] = ToBf16(value);
    } else {
      static_cast<float*>(data)[index] = value;
    }
  }

  static float Total(Vector v) {
    float lane[V::kWidth];
    V::Store(lane, v);
    float total = 0;
    for (int i = 0; i < V::kWidth; ++i) total += lane[i];
    return total;
  }
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_TEXT_MATH_H_
