// 16 float32 lanes; only for files that are compiled with AVX-512 F, BW, DQ and VL.
#ifndef HANMO_WORKERS_KERNELS_SIMD_AVX512_H_
#define HANMO_WORKERS_KERNELS_SIMD_AVX512_H_

#include <immintrin.h>

#include <cstdint>

namespace hanmo {

struct SimdAvx512 {
  static constexpr int kWidth = 16;
  // 6 rows × 4 vectors keep 24 sums, 4 weights and an input in the 32 registers.
  static constexpr int kBlockVectors = 4;
  static constexpr int kRowVectors = 4;
  static constexpr int kBlockRows = 6;
  static constexpr bool kBf16Activations = false;

  using Vector = __m512;

  static Vector Set(float x) { return _mm512_set1_ps(x); }
  static Vector Load(const float* p) { return _mm512_loadu_ps(p); }
  static Vector LoadBf16(const uint16_t* p) {
    const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
  }
  static Vector LoadFloat16(const uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void Store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
  static void StoreBf16(uint16_t* p, Vector v) {
    const __m512i bits = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(rounded));
  }
  static Vector Add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
  static Vector Sub(Vector a, Vector b) { return _mm512_sub_ps(a, b); }
  static Vector Mul(Vector a, Vector b) { return _mm512_mul_ps(a, b); }
  static Vector Div(Vector a, Vector b) { return _mm512_div_ps(a, b); }
  static Vector Max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
  static Vector Min(Vector a, Vector b) { return _mm512_min_ps(a, b); }
  static Vector Fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector Round(Vector a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  }
  static Vector Scale2(Vector a, Vector n) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_mul_ps(a, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)));
  }
  static Vector CopySign(Vector magnitude, Vector sign) {
    const __m512 mask = _mm512_set1_ps(-0.0f);
    return _mm512_or_ps(_mm512_andnot_ps(mask, magnitude), _mm512_and_ps(mask, sign));
  }
  static Vector LoadEvenBf16(const uint16_t* p) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_loadu_si512(p), 16));
  }
  static Vector LoadOddBf16(const uint16_t* p) {
    const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    return _mm512_castsi512_ps(_mm512_and_si512(_mm512_loadu_si512(p), upper));
  }
};

#if defined(__AVX512BF16__)
struct SimdAvx512Bf16 : SimdAvx512 {
  static constexpr bool kBf16Activations = true;
  // sum + w[2i] · first + w[2i + 1] · second, where `pair` is two bfloat16, the first one low.
  static Vector DotPair(Vector sum, const uint16_t* w, uint32_t pair) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(_mm512_loadu_si512(w)),
                            reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(pair))));
  }
};
#endif

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_SIMD_AVX512_H_
