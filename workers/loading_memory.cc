#include "workers/loading_memory.h"

#include <malloc.h>

namespace hanmo {

LoadingMemory::LoadingMemory() { mallopt(M_MMAP_THRESHOLD, 256 << 10); }

LoadingMemory::~LoadingMemory() {
  malloc_trim(0);
  // As in ConfigureAllocator.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
}

}  // namespace hanmo
