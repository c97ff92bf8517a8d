// The device a worker computes on, opened once at start.
#ifndef HANMO_WORKERS_DEVICE_H_
#define HANMO_WORKERS_DEVICE_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/batcher/worker.h"

namespace hanmo {

class ComputeDevice {
 public:
  // "cpu" or "cuda:N". For CUDA, libtorch_cuda.so is opened beside libtorch_cpu.so: one binary
  // serves both. INVALID_ARGUMENT for another name; FAILED_PRECONDITION says what is missing: the
  // library, the driver, or the GPU.
  static absl::StatusOr<ComputeDevice> Open(const std::string& name);

  at::Device device() const { return device_; }
  // "cpu", "cuda:0", ...
  std::string name() const { return device_.str(); }
  // Of the processor or GPU, for people.
  const std::string& model() const { return model_; }
  // On a CPU within the limits of the process's control group, as a container has them.
  DeviceMemory memory() const;
  // The type a model is served in unless another is asked for: float32 on a CPU, for parity with
  // diffusers and transformers; bfloat16 on a GPU.
  at::ScalarType default_dtype() const { return device_.is_cpu() ? at::kFloat : at::kBFloat16; }
  // What decides the bytes of a result: libtorch, the kind of device, and its instruction set.
  std::string build() const;

 private:
  ComputeDevice(at::Device device, std::string model) : device_(device), model_(std::move(model)) {}

  at::Device device_;
  std::string model_;
};

// Lowers total and free memory to the limit of the control group (version 2) whose files are in
// `folder`; without a limit below them everything stays as it is.
void LimitToControlGroup(const std::string& folder, DeviceMemory* memory);

// Sets how many threads the operators called from this thread use. libtorch keeps it per thread, so
// call it on the compute thread.
void SetComputeThreads(int threads);

// Keeps the resident memory flat of a process that allocates and frees large tensors all the time:
// one arena, and very large blocks given back to the system at once. Call first in main.
void ConfigureAllocator();

}  // namespace hanmo

#endif  // HANMO_WORKERS_DEVICE_H_
