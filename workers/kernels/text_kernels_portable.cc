#include "workers/kernels/simd_portable.h"
#include "workers/kernels/text_kernels_body.h"

namespace hanmo {

extern const TextKernels kTextKernelsPortable;
const TextKernels kTextKernelsPortable = TextKernelBody<SimdPortable>::kTable;

}  // namespace hanmo
