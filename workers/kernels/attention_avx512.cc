#include "workers/kernels/attention_body.h"

namespace hanmo {
namespace {

struct FloatAvx512 {
  using Element = float;
  static constexpr int64_t kDepth = 1;

  static __m512 Multiply(__m512 sum, __m512i a, __m512i b) {
    return _mm512_fmadd_ps(_mm512_castsi512_ps(a), _mm512_castsi512_ps(b), sum);
  }
  static void Store(float* to, __m512 value) { _mm512_storeu_ps(to, value); }
};

}  // namespace

extern const AttentionKernel kAttentionAvx512;
const AttentionKernel kAttentionAvx512 = MakeAttentionKernel<FloatAvx512>();

}  // namespace hanmo
