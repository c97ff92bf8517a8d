// 16 float32 lanes in plain C++, with the interface that text_kernels_body.h is written in.
#ifndef HANMO_WORKERS_KERNELS_SIMD_PORTABLE_H_
#define HANMO_WORKERS_KERNELS_SIMD_PORTABLE_H_

#include <cmath>
#include <cstdint>
#include <cstring>

#include "workers/kernels/text_kernels.h"

namespace hanmo {

struct SimdPortable {
  static constexpr int kWidth = 16;
  // Vectors of columns that a block of rows, and a single row, computes at a time.
  static constexpr int kBlockVectors = 1;
  static constexpr int kRowVectors = 1;
  static constexpr int kBlockRows = 4;
  static constexpr bool kBf16Activations = false;

  struct Vector {
    float lane[kWidth];
  };

  template <class F>
  static Vector Each(F f) {
    Vector v;
    for (int i = 0; i < kWidth; ++i) v.lane[i] = f(i);
    return v;
  }
  static Vector Set(float x) {
    return Each([&](int) { return x; });
  }
  static Vector Load(const float* p) {
    return Each([&](int i) { return p[i]; });
  }
  static Vector LoadBf16(const uint16_t* p) {
    return Each([&](int i) { return FromBf16(p[i]); });
  }
  static Vector LoadFloat16(const uint16_t* p) {
    return Each([&](int i) { return FromFloat16(p[i]); });
  }
  static void Store(float* p, const Vector& v) { std::memcpy(p, v.lane, sizeof(v.lane)); }
  static void StoreBf16(uint16_t* p, const Vector& v) {
    for (int i = 0; i < kWidth; ++i) p[i] = ToBf16(v.lane[i]);
  }
  static Vector Add(const Vector& a, const Vector& b) {
    return Each([&](int i) { return a.lane[i] + b.lane[i]; });
  }
  static Vector Sub(const Vector& a, const Vector& b) {
    return Each([&](int i) { return a.lane[i] - b.lane[i]; });
  }
  static Vector Mul(const Vector& a, const Vector& b) {
    return Each([&](int i) { return a.lane[i] * b.lane[i]; });
  }
  static Vector Div(const Vector& a, const Vector& b) {
    return Each([&](int i) { return a.lane[i] / b.lane[i]; });
  }
  static Vector Max(const Vector& a, const Vector& b) {
    return Each([&](int i) { return a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  static Vector Min(const Vector& a, const Vector& b) {
    return Each([&](int i) { return a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]; });
  }
  // a · b + c
  static Vector Fma(const Vector& a, const Vector& b, const Vector& c) {
    return Each([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }
  static Vector Round(const Vector& a) {
    return Each([&](int i) { return std::nearbyint(a.lane[i]); });
  }
  // a · 2^n for integral n in [-126, 127]
  static Vector Scale2(const Vector& a, const Vector& n) {
    return Each([&](int i) { return std::ldexp(a.lane[i], static_cast<int>(n.lane[i])); });
  }
  static Vector CopySign(const Vector& magnitude, const Vector& sign) {
    return Each([&](int i) { return std::copysign(magnitude.lane[i], sign.lane[i]); });
  }
  // p[0], p[2], p[4] … and p[1], p[3], p[5] …
  static Vector LoadEvenBf16(const uint16_t* p) {
    return Each([&](int i) { return FromBf16(p[2 * i]); });
  }
  static Vector LoadOddBf16(const uint16_t* p) {
    return Each([&](int i) { return FromBf16(p[2 * i + 1]); });
  }
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_SIMD_PORTABLE_H_
