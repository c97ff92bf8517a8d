// How much memory a step works with.
#ifndef HANMO_WORKERS_WORKING_MEMORY_H_
#define HANMO_WORKERS_WORKING_MEMORY_H_

#include <cstdint>

#include "workers/device.h"

namespace hanmo {

// From now on the memory of tensors on the CPU is counted, which a GPU's allocator does anyway;
// until then WorkingMemory sees 0 there. Call before the first tensor; not thread-safe.
void CountTensorMemory();

// The most that tensors take at once in its scope, beyond what there is at its start. Scopes may
// nest, on one thread: a step that is suspended is not charged for those that run meanwhile.
class WorkingMemory {
 public:
  explicit WorkingMemory(const ComputeDevice& device);
  ~WorkingMemory();
  WorkingMemory(const WorkingMemory&) = delete;
  WorkingMemory& operator=(const WorkingMemory&) = delete;

  // So far, in bytes. 0 beside the loading of a model, whose tensors would count, too.
  uint64_t peak_bytes() const;

 private:
  const at::Device device_;
  const uint64_t loadings_;
  uint64_t start_;
  uint64_t outer_peak_ = 0;  // of the scope around this one, until now
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_WORKING_MEMORY_H_
