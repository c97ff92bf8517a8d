#include "workers/kernels/attention_body.h"

namespace hanmo {
namespace {

// A word is two neighbours along the depth; one instruction multiplies and adds both.
struct Bfloat16Avx512 {
  using Element = uint16_t;
  static constexpr int64_t kDepth = 2;

  static __m512 Multiply(__m512 sum, __m512i a, __m512i b) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
  }
  static void Store(uint16_t* to, __m512 value) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value)));
  }
};

}  // namespace

extern const AttentionKernel kAttentionAvx512Bf16;
const AttentionKernel kAttentionAvx512Bf16 = MakeAttentionKernel<Bfloat16Avx512>();

}  // namespace hanmo
