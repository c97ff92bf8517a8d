// Runs single steps of one UNet folder, on command, and prints what each took: our side of
// bench/unet.py, which alternates it with the other side.
//
//   bench_unet FOLDER DTYPE THREADS [DEVICE]
//
// Prints {"load_seconds", "resident_bytes"} first. Commands on standard input, one line each:
//   run INPUT [OUTPUT]   one forward pass of the tensors latents, timesteps and text in the
//                        safetensors file INPUT; writes the prediction as raw float32 to OUTPUT
#include "workers/models/unet.h"

#include <ATen/Parallel.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include "workers/checkpoint/checkpoint.h"
#include "workers/device.h"

namespace hanmo {
namespace {

struct Clock {
  std::chrono::steady_clock::time_point wall = std::chrono::steady_clock::now();
  std::clock_t cpu = std::clock();

  double seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - wall).count();
  }
  double cpu_seconds() const { return static_cast<double>(std::clock() - cpu) / CLOCKS_PER_SEC; }
};

// What the system counts against the process and cannot drop: "RssAnon" plus "RssShmem", in bytes.
int64_t ResidentBytes() {
  std::ifstream status("/proc/self/status");
  int64_t bytes = 0;
  for (std::string word; status >> word;) {
    if (word != "RssAnon:" && word != "RssShmem:") continue;
    int64_t kib = 0;
    status >> kib;
    bytes += kib * 1024;
  }
  return bytes;
}

at::Tensor Read(Checkpoint& file, const std::string& name) {
  return *file.TakeAs(name, *file.Shape(name), at::kFloat);
}

int Serve(const std::string& folder, at::ScalarType dtype, const std::string& device_name) {
  const Clock loading;
  const absl::StatusOr<ComputeDevice> device = ComputeDevice::Open(device_name);
  if (!device.ok()) {
    std::cerr << device.status() << "\n";
    return 1;
  }
  absl::StatusOr<Checkpoint> checkpoint =
      Checkpoint::Open(folder, {.dtype = dtype, .device = device->device()});
  if (!checkpoint.ok()) {
    std::cerr << checkpoint.status() << "\n";
    return 1;
  }
  const absl::StatusOr<std::unique_ptr<Unet>> unet = Unet::Load(*checkpoint, {});
  if (!unet.ok()) {
    std::cerr << unet.status() << "\n";
    return 1;
  }
  std::cout << "{\"load_seconds\": " << loading.seconds()
            << ", \"resident_bytes\": " << ResidentBytes() << "}" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, input, output;
    words >> command >> input >> output;
    absl::StatusOr<Checkpoint> file = Checkpoint::OpenFile(input);
    if (command != "run" || !file.ok()) {
      std::cerr << "unknown command or input: " << line << " " << file.status() << "\n";
      return 1;
    }
    const at::Tensor latents = Read(*file, "latents").to(device->device());
    const at::Tensor timesteps = Read(*file, "timesteps").to(device->device());
    const at::Tensor text = Read(*file, "text").to(device->device());
    const Clock clock;
    // On a GPU the copy waits for the result, as the worker does after each step.
    const at::Tensor prediction = (*unet)->Forward(latents, timesteps, text).to(at::kCPU);
    std::cout << "{\"seconds\": " << clock.seconds() << ", \"cpu_seconds\": " << clock.cpu_seconds()
              << "}" << std::endl;
    if (!output.empty()) {
      std::ofstream(output, std::ios::binary)
          .write(static_cast<const char*>(prediction.const_data_ptr()),
                 static_cast<std::streamsize>(prediction.nbytes()));
    }
  }
  return 0;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) {
  if (argc != 4 && argc != 5) {
    std::cerr << "usage: bench_unet FOLDER bfloat16|float32 THREADS [cpu|cuda:N]\n";
    return 2;
  }
  at::set_num_threads(std::stoi(argv[3]));
  const std::string dtype = argv[2];
  return hanmo::Serve(argv[1], dtype == "float32" ? at::kFloat : at::kBFloat16,
                      argc == 5 ? argv[4] : "cpu");
}
