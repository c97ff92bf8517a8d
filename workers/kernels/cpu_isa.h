// Which instruction set the kernels use. Chosen at run time: the build has no -march.
#ifndef HANMO_WORKERS_KERNELS_CPU_ISA_H_
#define HANMO_WORKERS_KERNELS_CPU_ISA_H_

#include <vector>

namespace hanmo {

enum class CpuIsa {
  kPortable,    // plain C++
  kAvx2,        // AVX2, FMA, F16C
  kAvx512,      // AVX-512 F, BW, DQ, VL
  kAvx512Bf16,  // and AVX512-BF16
};

// What this machine can run, the best last. Never empty.
std::vector<CpuIsa> SupportedIsas();
inline CpuIsa BestIsa() { return SupportedIsas().back(); }

// "avx512_bf16" …: part of the build that a worker reports, because results differ by rounding.
const char* IsaName(CpuIsa isa);

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_CPU_ISA_H_
