#include "workers/kernels/simd_avx2.h"
#include "workers/kernels/text_kernels_body.h"

namespace hanmo {

extern const TextKernels kTextKernelsAvx2;
const TextKernels kTextKernelsAvx2 = TextKernelBody<SimdAvx2>::kTable;

}  // namespace hanmo
