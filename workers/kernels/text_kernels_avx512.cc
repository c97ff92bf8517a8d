#include "workers/kernels/simd_avx512.h"
#include "workers/kernels/text_kernels_body.h"

namespace hanmo {

extern const TextKernels kTextKernelsAvx512;
const TextKernels kTextKernelsAvx512 = TextKernelBody<SimdAvx512>::kTable;

}  // namespace hanmo
