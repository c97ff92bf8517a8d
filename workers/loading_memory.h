// How the heap behaves while a model loads, beside steps of others.
#ifndef HANMO_WORKERS_LOADING_MEMORY_H_
#define HANMO_WORKERS_LOADING_MEMORY_H_

#include <cstdint>

namespace hanmo {

// In its scope every block of 256 KiB or more is mapped on its own and goes back to the system when
// it is freed: what conversion and packing leave behind would otherwise stay as holes between the
// weights (measured on Taiyi's shapes in bfloat16: a peak of 1.32 times the weights). Afterwards
// ConfigureAllocator's settings hold again, which reuse blocks. One at a time.
class LoadingMemory {
 public:
  // Scopes entered and left so far: odd while there is one. Thread-safe.
  static uint64_t changes();

  LoadingMemory();
  ~LoadingMemory();
  LoadingMemory(const LoadingMemory&) = delete;
  LoadingMemory& operator=(const LoadingMemory&) = delete;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_LOADING_MEMORY_H_
