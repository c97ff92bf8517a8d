#include "workers/kernels/cpu_isa.h"

namespace hanmo {

std::vector<CpuIsa> SupportedIsas() {
  std::vector<CpuIsa> isas = {CpuIsa::kPortable};
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("f16c");
  if (!avx2) return isas;
  isas.push_back(CpuIsa::kAvx2);
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (!avx512) return isas;
  isas.push_back(CpuIsa::kAvx512);
  if (__builtin_cpu_supports("avx512bf16")) isas.push_back(CpuIsa::kAvx512Bf16);
#endif
  return isas;
}

CpuIsa BestIsa() {
  const std::vector<CpuIsa> isas = SupportedIsas();
#if defined(__x86_64__)
  if (isas.back() == CpuIsa::kAvx512Bf16 && !__builtin_cpu_is("amd")) return CpuIsa::kAvx512;
#endif
  return isas.back();
}

const char* IsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512_bf16";
  }
  return "unknown";
}

}  // namespace hanmo
