#include "workers/kernels/simd_avx512.h"
#include "workers/kernels/text_kernels_body.h"

namespace hanmo {

extern const TextKernels kTextKernelsAvx512Bf16;
const TextKernels kTextKernelsAvx512Bf16 = TextKernelBody<SimdAvx512Bf16>::kTable;

}  // namespace hanmo
