#include "workers/loading_memory.h"

#include <malloc.h>

#include <atomic>

namespace hanmo {
namespace {

std::atomic<uint64_t> scope_changes{0};

}  // namespace

uint64_t LoadingMemory::changes() { return scope_changes; }

LoadingMemory::LoadingMemory() {
  ++scope_changes;
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
}

LoadingMemory::~LoadingMemory() {
  malloc_trim(0);
  // As in ConfigureAllocator.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  ++scope_changes;
}

}  // namespace hanmo
