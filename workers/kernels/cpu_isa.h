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

// What this machine can run. Never empty.
std::vector<CpuIsa> SupportedIsas();
// The fastest of them; always the same on one machine. AVX512-BF16 on AMD only: measured on Intel's
// fifth generation Xeon, its products run at 43 G/s per core, float32's at 87, and widening the
// weights costs less than the difference.
CpuIsa BestIsa();

// "avx512_bf16" …: part of the build that a worker reports, because results differ by rounding.
const char* IsaName(CpuIsa isa);

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_CPU_ISA_H_
