// A model of ERNIE-ViLG 1.0's true width, and of as many layers as wanted, for benchmarks: 4096
// wide, 64 heads, an inner width of 16384, 32 x 32 tokens. Its weights are zeros in a sparse file:
// time does not depend on them.
#ifndef HANMO_BENCH_ZERO_ERNIE_VILG_H_
#define HANMO_BENCH_ZERO_ERNIE_VILG_H_

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "workers/models/ernie_vilg.h"

namespace hanmo {

// In bfloat16 on the CPU. `sparse` has the paper's rows, columns and window. The file lies in the
// system's folder for temporary ones meanwhile.
absl::StatusOr<std::unique_ptr<ErnieVilg>> LoadZeroErnieVilg(int64_t layers, bool sparse);

// Writes to all of it, so that reading costs what it does in service.
void Touch(KvCache& cache);

}  // namespace hanmo

#endif  // HANMO_BENCH_ZERO_ERNIE_VILG_H_
