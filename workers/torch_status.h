// The one border between libtorch's exceptions and our absl::Status.
#ifndef HANMO_WORKERS_TORCH_STATUS_H_
#define HANMO_WORKERS_TORCH_STATUS_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace hanmo {

// Runs `body`; what it throws becomes a status: RESOURCE_EXHAUSTED when memory ran out, INTERNAL
// otherwise. A device that is beyond recovery (CUDA's sticky errors) ends the process instead: the
// server starts another, which a broken context would only delay.
absl::Status CatchTorch(absl::FunctionRef<absl::Status()> body);

}  // namespace hanmo

#endif  // HANMO_WORKERS_TORCH_STATUS_H_
