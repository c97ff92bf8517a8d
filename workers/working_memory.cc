#include "workers/working_memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <malloc.h>

#include <algorithm>
#include <atomic>

#include "workers/loading_memory.h"

namespace hanmo {
namespace {

// Operators allocate on any of their threads.
std::atomic<int64_t> in_use{0}, peak{0};

void RaisePeak(int64_t bytes) {
  int64_t seen = peak.load(std::memory_order_relaxed);
  while (seen < bytes && !peak.compare_exchange_weak(seen, bytes, std::memory_order_relaxed)) {
  }
}

void Free(void* data) {
  in_use.fetch_sub(static_cast<int64_t>(malloc_usable_size(data)), std::memory_order_relaxed);
  c10::free_cpu(data);
}

class CountingAllocator final : public at::Allocator {
 public:
  at::DataPtr allocate(size_t bytes) override {
    void* data = c10::alloc_cpu(bytes);
    const auto size = static_cast<int64_t>(malloc_usable_size(data));
    RaisePeak(in_use.fetch_add(size, std::memory_order_relaxed) + size);
    return {data, data, &Free, at::Device(at::kCPU)};
  }
  at::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t bytes) const override {
    default_copy_data(to, from, bytes);
  }
};

c10::DeviceAllocator* Cuda() { return c10::getDeviceAllocator(at::kCUDA); }

}  // namespace

void CountTensorMemory() {
  static CountingAllocator allocator;
  c10::SetCPUAllocator(&allocator, /*priority=*/1);
}

WorkingMemory::WorkingMemory(const ComputeDevice& device)
    : device_(device.device()), loadings_(LoadingMemory::changes()) {
  if (device_.is_cpu()) {
    start_ = static_cast<uint64_t>(in_use.load(std::memory_order_relaxed));
    outer_peak_ = static_cast<uint64_t>(peak.exchange(in_use, std::memory_order_relaxed));
  } else {
    // Steps do not nest there.
    start_ = Cuda()->getDeviceStats(device_.index()).allocated_bytes[0].current;
    Cuda()->resetPeakStats(device_.index());
  }
}

WorkingMemory::~WorkingMemory() {
  if (!device_.is_cpu()) return;
  const auto now = static_cast<uint64_t>(in_use.load(std::memory_order_relaxed));
  peak.store(static_cast<int64_t>(std::max(outer_peak_, now)), std::memory_order_relaxed);
}

uint64_t WorkingMemory::peak_bytes() const {
  if (loadings_ % 2 != 0 || loadings_ != LoadingMemory::changes()) return 0;
  const uint64_t most = device_.is_cpu()
                            ? static_cast<uint64_t>(peak.load(std::memory_order_relaxed))
                            : Cuda()->getDeviceStats(device_.index()).allocated_bytes[0].peak;
  return most - std::min(most, start_);
}

}  // namespace hanmo
