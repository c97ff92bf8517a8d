#include "workers/device.h"

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <dlfcn.h>
#include <malloc.h>
#include <torch/headeronly/version.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "workers/torch_status.h"

namespace hanmo {
namespace {

// The first value of `key` in a file of "key : value" lines.
std::string ReadKey(const char* path, absl::string_view key) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    absl::string_view rest = line;
    if (!absl::ConsumePrefix(&rest, key)) continue;
    return std::string(absl::StripAsciiWhitespace(rest.substr(rest.find(':') + 1)));
  }
  return "unknown";
}

uint64_t ReadKilobytes(const char* path, absl::string_view key) {
  uint64_t kilobytes = 0;
  const std::string text = ReadKey(path, key);
  if (!absl::SimpleAtoi(text.substr(0, text.find(' ')), &kilobytes)) return 0;
  return kilobytes << 10;
}

uint64_t ReadNumber(const std::string& path, uint64_t otherwise) {
  std::ifstream file(path);
  uint64_t number = 0;
  return file >> number ? number : otherwise;
}

// libtorch_cuda.so lies beside libtorch_cpu.so; opening it registers its operators.
absl::Status OpenCudaLibrary() {
  Dl_info info = {};
  if (dladdr(reinterpret_cast<void*>(&at::get_num_threads), &info) == 0) {
    return absl::FailedPreconditionError("cannot tell where libtorch lies");
  }
  std::string path = info.dli_fname;
  path = path.substr(0, path.rfind('/') + 1) + "libtorch_cuda.so";
  // Never closed: libtorch can't be unloaded.
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("CUDA needs ", path, " and NVIDIA's libraries: ", dlerror()));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> CudaIndex(const std::string& name) {
  absl::string_view rest = name;
  int index = 0;
  if (!absl::ConsumePrefix(&rest, "cuda:") || !absl::SimpleAtoi(rest, &index) || index < 0 ||
      index > 63) {
    return absl::InvalidArgumentError(
        absl::StrCat("device \"", name, "\": cpu or cuda:0 to cuda:63 expected"));
  }
  return index;
}

}  // namespace

absl::StatusOr<ComputeDevice> ComputeDevice::Open(const std::string& name) {
  if (name == "cpu") return ComputeDevice(at::kCPU, ReadKey("/proc/cpuinfo", "model name"));
  absl::StatusOr<int> index = CudaIndex(name);
  if (!index.ok()) return index.status();
  if (absl::Status status = OpenCudaLibrary(); !status.ok()) return status;
  int count = 0;
  absl::Status status = CatchTorch([&] {
    const auto& hooks = at::detail::getCUDAHooks();
    count = hooks.deviceCount();
    if (*index < count) at::globalContext().lazyInitDevice(at::kCUDA);
    // float32 means float32: cuDNN would round operands to 10 bits (TF32) unless told otherwise.
    at::globalContext().setAllowTF32CuDNN(false);
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  if (*index >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("device ", name, ": the driver shows ", count, " GPUs"));
  }
  return ComputeDevice(at::Device(at::kCUDA, *index),
                       ReadKey(absl::StrCat("/proc/driver/nvidia/gpus/", *index).c_str(), "Model"));
}

DeviceMemory ComputeDevice::memory() const {
  DeviceMemory memory;
  if (device_.is_cpu()) {
    memory.total = ReadKilobytes("/proc/meminfo", "MemTotal");
    memory.free = ReadKilobytes("/proc/meminfo", "MemAvailable");
    LimitToControlGroup("/sys/fs/cgroup" + ReadKey("/proc/self/cgroup", "0:"), &memory);
    // What was freed and is kept for the next step.
    memory.free += mallinfo2().fordblks;
    std::ifstream statm("/proc/self/statm");
    uint64_t size = 0, resident = 0;
    statm >> size >> resident;
    memory.used = resident * sysconf(_SC_PAGESIZE);
    return memory;
  }
  CatchTorch([&] {
    auto* allocator = c10::getDeviceAllocator(at::kCUDA);
    const auto [free, total] = allocator->getMemoryInfo(device_.index());
    const auto stats = allocator->getDeviceStats(device_.index());
    memory.total = total;
    memory.used = stats.reserved_bytes[0].current;
    memory.free = free + memory.used - stats.allocated_bytes[0].current;
    return absl::OkStatus();
  }).IgnoreError();
  return memory;
}

std::string ComputeDevice::build() const {
  return absl::StrCat("torch ", TORCH_VERSION, " ", device_.is_cpu() ? "cpu " : "cuda ",
                      device_.is_cpu() ? at::get_cpu_capability() : model_);
}

void LimitToControlGroup(const std::string& folder, DeviceMemory* memory) {
  const uint64_t limit = ReadNumber(folder + "/memory.max", UINT64_MAX);
  if (limit >= memory->total) return;
  uint64_t used = ReadNumber(folder + "/memory.current", 0);
  std::ifstream stat(folder + "/memory.stat");
  uint64_t bytes = 0;
  for (std::string key; stat >> key >> bytes;) {
    // Files that were read: dropped when the memory is needed.
    if (key == "inactive_file") used -= std::min(used, bytes);
  }
  memory->total = limit;
  memory->free = std::min(memory->free, limit - std::min(limit, used));
}

void SetComputeThreads(int threads) { at::set_num_threads(threads); }

void ConfigureAllocator() {
  // The compute thread allocates nearly everything: one arena serves it, and further ones would
  // only keep what they once had.
  mallopt(M_ARENA_MAX, 1);
  // Fixed thresholds, as glibc would otherwise move them with the blocks it sees. Activations up to
  // 32 MiB (glibc's limit) are reused without new page faults; larger ones go back at once; so does
  // the top of the heap beyond 512 MiB.
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 512 << 20);
}

}  // namespace hanmo
