#include "workers/kernels/group_norm.h"

#include <bit>

// The loops below run over adjacent channels, which the compiler turns into vectors; it builds one
// copy for each instruction set and the loader picks one.
#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__) && !defined(__clang__)
#define HANMO_CLONES \
  __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define HANMO_CLONES
#endif

namespace hanmo {
namespace {

inline float Load(float value) { return value; }
inline float Load(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

inline void Store(float value, float* to) { *to = value; }
inline void Store(float value, uint16_t* to) {
  // Rounds half to even; NaN stays NaN because its payload's top bit is set by arithmetic.
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  *to = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// e^x for x ≤ 88, relative error below 2e-7: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2].
// Any bits for NaN, hence the unsigned sums: a caller's own NaN goes through the product.
inline float Exp(float x) {
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = x * 1.44269504f + kRounder;
  const float n = shifted - kRounder;
  const float r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const uint32_t exponent = std::bit_cast<uint32_t>(shifted) - std::bit_cast<uint32_t>(kRounder);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (exponent << 23));
}

template <typename T>
inline __attribute__((always_inline)) void Moments(const T* x, int64_t pixels, int64_t channels,
                                                   const float* __restrict origin,
                                                   float* __restrict sum,
                                                   float* __restrict square) {
  for (int64_t i = 0; i < pixels; ++i, x += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      const float value = Load(x[c]) - origin[c];
      sum[c] += value;
      square[c] += value * value;
    }
  }
}

template <typename T, bool kSilu>
inline __attribute__((always_inline)) void Scale(const T* x, int64_t pixels, int64_t channels,
                                                 const float* __restrict scale,
                                                 const float* __restrict shift, T* y) {
  for (int64_t i = 0; i < pixels; ++i, x += channels, y += channels) {
#if !defined(__clang__)
#pragma GCC ivdep
#endif
    for (int64_t c = 0; c < channels; ++c) {
      float value = Load(x[c]) * scale[c] + shift[c];
      if constexpr (kSilu) value = value / (1.0f + Exp(-value));
      Store(value, y + c);
    }
  }
}

}  // namespace

HANMO_CLONES
void AddMoments(const float* x, int64_t pixels, int64_t channels, const float* origin, float* sum,
                float* square) {
  Moments(x, pixels, channels, origin, sum, square);
}

HANMO_CLONES
void AddMoments(const uint16_t* x, int64_t pixels, int64_t channels, const float* origin,
                float* sum, float* square) {
  Moments(x, pixels, channels, origin, sum, square);
}

HANMO_CLONES
void ScaleChannels(const float* x, int64_t pixels, int64_t channels, ChannelScale by, float* y) {
  if (by.silu) {
    Scale<float, true>(x, pixels, channels, by.scale, by.shift, y);
  } else {
    Scale<float, false>(x, pixels, channels, by.scale, by.shift, y);
  }
}

HANMO_CLONES
void ScaleChannels(const uint16_t* x, int64_t pixels, int64_t channels, ChannelScale by,
                   uint16_t* y) {
  if (by.silu) {
    Scale<uint16_t, true>(x, pixels, channels, by.scale, by.shift, y);
  } else {
    Scale<uint16_t, false>(x, pixels, channels, by.scale, by.shift, y);
  }
}

}  // namespace hanmo
