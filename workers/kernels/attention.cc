#include "workers/kernels/attention.h"

#include "workers/kernels/cpu_isa.h"

namespace hanmo {

#if defined(__x86_64__)
extern const AttentionKernel kAttentionAvx512;
extern const AttentionKernel kAttentionAvx512Bf16;
#endif

const AttentionKernel* FindAttentionKernel(AttentionType type) {
#if defined(__x86_64__)
  static const CpuIsa best = BestIsa();
  if (type == AttentionType::kBfloat16) {
    return best == CpuIsa::kAvx512Bf16 ? &kAttentionAvx512Bf16 : nullptr;
  }
  if (best == CpuIsa::kAvx512 || best == CpuIsa::kAvx512Bf16) return &kAttentionAvx512;
#endif
  return nullptr;
}

}  // namespace hanmo
