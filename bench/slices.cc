// Runs steps of one UNet or VAE folder whole and in slices, on command, and prints how long the
// slices were: for bench/slices.py.
//
//   bench_slices unet|vae FOLDER DTYPE THREADS CLOCK
//
// CLOCK is wall, or cpu: the processor time of the computing thread, for machines that others use
// too (exact with one thread).
//
// Commands on standard input, one line each:
//   run INPUT BUDGET_MS DISTURB_MB OUTPUT
//     one pass over the tensors in the safetensors file INPUT (unet: latents, timesteps and text;
//     vae: latents), suspended once BUDGET_MS have passed (0: never). While it is suspended,
//     DISTURB_MB of memory are read, as a text step reads its weights; that time is not counted.
//     Writes the result as raw float32 to OUTPUT ("-": nowhere). Answers
//     {"seconds", "slices_ms": [...], "longest_gap_ms"}: the sum of the slices, each of them, and
//     the longest time between two yield points.
#include <time.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

#include "workers/checkpoint/checkpoint.h"
#include "workers/device.h"
#include "workers/kernels/yield.h"
#include "workers/models/unet.h"
#include "workers/models/vae.h"

namespace hanmo {
namespace {

// Of the wall, or of the processor time that this thread has had.
double Milliseconds(clockid_t clock) {
  timespec now = {};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) * 1e3 + static_cast<double>(now.tv_nsec) / 1e6;
}

class Slices final : public YieldListener {
 public:
  Slices(clockid_t clock, double budget_ms, size_t disturb_bytes)
      : clock_(clock), budget_ms_(budget_ms), disturb_(disturb_bytes / sizeof(int64_t), 1) {
    start_ = last_ = Milliseconds(clock_);
  }

  bool OnYieldPoint() override {
    longest_gap_ms_ = std::max(longest_gap_ms_, Milliseconds(clock_) - last_);
    if (budget_ms_ > 0 && Milliseconds(clock_) - start_ >= budget_ms_) {
      End();
      sum_ += std::accumulate(disturb_.begin(), disturb_.end(), int64_t{0});
      start_ = Milliseconds(clock_);
    }
    last_ = Milliseconds(clock_);
    return true;
  }
  void End() { slices_ms_.push_back(Milliseconds(clock_) - start_); }

  nlohmann::json Report() const {
    const double all = std::accumulate(slices_ms_.begin(), slices_ms_.end(), 0.0);
    return {{"seconds", all / 1000},
            {"slices_ms", slices_ms_},
            {"longest_gap_ms", longest_gap_ms_},
            {"read", sum_}};
  }

 private:
  const clockid_t clock_;
  const double budget_ms_;
  const std::vector<int64_t> disturb_;
  int64_t sum_ = 0;
  double start_, last_;
  std::vector<double> slices_ms_;
  double longest_gap_ms_ = 0;
};

at::Tensor Read(Checkpoint& file, const std::string& name) {
  return *file.TakeAs(name, *file.Shape(name), at::kFloat);
}

using Pass = std::function<at::Tensor(Checkpoint& inputs)>;

absl::StatusOr<Pass> Load(const std::string& kind, Checkpoint& checkpoint) {
  if (kind == "unet") {
    absl::StatusOr<std::unique_ptr<Unet>> unet = Unet::Load(checkpoint, {});
    if (!unet.ok()) return unet.status();
    std::shared_ptr<Unet> model = *std::move(unet);
    return Pass([model](Checkpoint& file) {
      return model->Forward(Read(file, "latents"), Read(file, "timesteps"), Read(file, "text"));
    });
  }
  absl::StatusOr<std::unique_ptr<Vae>> vae = Vae::Load(checkpoint, {});
  if (!vae.ok()) return vae.status();
  std::shared_ptr<Vae> model = *std::move(vae);
  return Pass([model](Checkpoint& file) { return model->Decode(Read(file, "latents")); });
}

int Serve(const std::string& kind, const std::string& folder, at::ScalarType dtype,
          clockid_t clock) {
  absl::StatusOr<Checkpoint> checkpoint = Checkpoint::Open(folder, {.dtype = dtype});
  if (!checkpoint.ok()) {
    std::cerr << checkpoint.status() << "\n";
    return 1;
  }
  const absl::StatusOr<Pass> pass = Load(kind, *checkpoint);
  if (!pass.ok()) {
    std::cerr << pass.status() << "\n";
    return 1;
  }
  std::cout << "{}" << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, input, output;
    double budget_ms = 0;
    size_t disturb_mb = 0;
    words >> command >> input >> budget_ms >> disturb_mb >> output;
    absl::StatusOr<Checkpoint> file = Checkpoint::OpenFile(input);
    if (command != "run" || output.empty() || !file.ok()) {
      std::cerr << "unknown command or input: " << line << " " << file.status() << "\n";
      return 1;
    }
    Slices slices(clock, budget_ms, disturb_mb << 20);
    at::Tensor result;
    {
      const YieldScope scope(&slices);
      result = (*pass)(*file);
    }
    slices.End();
    if (output != "-") {
      std::ofstream(output, std::ios::binary)
          .write(static_cast<const char*>(result.const_data_ptr()),
                 static_cast<std::streamsize>(result.nbytes()));
    }
    std::cout << slices.Report() << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) {
  if (argc != 6) {
    std::cerr << "usage: bench_slices unet|vae FOLDER bfloat16|float32 THREADS wall|cpu\n";
    return 2;
  }
  hanmo::ConfigureAllocator();
  hanmo::SetComputeThreads(std::stoi(argv[4]));
  const bool wide = std::string(argv[3]) == "float32";
  const bool cpu = std::string(argv[5]) == "cpu";
  return hanmo::Serve(argv[1], argv[2], wide ? at::kFloat : at::kBFloat16,
                      cpu ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC);
}
