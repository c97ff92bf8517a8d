#include "workers/kernels/attention.h"

#include <algorithm>
#include <vector>

#include "workers/kernels/cpu_isa.h"

namespace hanmo {

#if defined(__x86_64__)
extern const AttentionKernel kAttentionAvx512;
extern const AttentionKernel kAttentionAvx512Bf16;
#endif

const AttentionKernel* FindAttentionKernel(AttentionType type) {
#if defined(__x86_64__)
  static const std::vector<CpuIsa> isas = SupportedIsas();
  const bool floats = type == AttentionType::kFloat;
  const CpuIsa needed = floats ? CpuIsa::kAvx512 : CpuIsa::kAvx512Bf16;
  if (std::find(isas.begin(), isas.end(), needed) == isas.end()) return nullptr;
  return floats ? &kAttentionAvx512 : &kAttentionAvx512Bf16;
#else
  return nullptr;
#endif
}

}  // namespace hanmo
