// Paints pictures one after another with a model of several experts under several budgets of
// memory: the figures of bench/experts.py.
//
//   bench_experts FOLDER DTYPE THREADS SIZE STEPS PICTURES BYTES...
//
// One JSON line for each of BYTES (--expert-memory; 0 is all of them): experts in memory, seconds a
// picture, how many of them were spent waiting for experts, resident memory after it, and a hash of
// the last picture.
#include <chrono>
#include <cstdint>
#include <fstream>
#include <functional>
#include <iostream>
#include <string>

#include "absl/time/time.h"
#include "workers/torch_executor.h"

namespace hanmo {
namespace {

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

struct Painted {
  absl::Status status;
  absl::Duration waited;
  size_t hash = 0;
};

Painted Paint(TorchExecutor& executor, const PictureJob& job, SampleHandle sample) {
  Painted painted;
  executor.Begin(sample, 0, job, {});
  const auto run = [&](StepKind kind) {
    const StepResult result = executor.Run({.id = 1, .kind = kind, .rows = {{.sample = sample}}});
    painted.waited += result.weights_time;
    painted.status = result.status;
    if (result.rows.empty()) return true;
    painted.hash = std::hash<std::string>()(result.rows[0].picture.rgb);
    painted.status = result.rows[0].status;
    return result.rows[0].steps_done == result.rows[0].steps_total;
  };
  run(StepKind::kTextEncode);
  while (!run(StepKind::kDenoise)) {
  }
  run(StepKind::kVaeDecode);
  executor.Drop({sample});
  return painted;
}

int Main(int argc, char** argv) {
  ConfigureAllocator();
  SetComputeThreads(std::stoi(argv[3]));
  TorchExecutor executor(*ComputeDevice::Open("cpu"));
  PictureJob job;
  job.width = job.height = std::stoul(argv[4]);
  job.steps = std::stoul(argv[5]);
  job.guidance = 2.1f;
  const int pictures = std::stoi(argv[6]);
  SampleHandle sample = 0;
  for (int i = 7; i < argc; ++i) {
    LoadCommand load;
    load.path = argv[1];
    load.dtype = argv[2];
    load.expert_bytes = std::stoull(argv[i]);
    const auto model = executor.Load(load);
    if (!model.ok()) {
      std::cerr << model.status() << "\n";
      return 1;
    }
    job.prompt.assign(model->prompt_tokens, 1);
    job.negative_prompt.assign(model->prompt_tokens, 0);
    Paint(executor, job, ++sample);  // as after another picture
    Painted last;
    absl::Duration waited;
    const auto start = std::chrono::steady_clock::now();
    for (int n = 0; n < pictures; ++n) {
      job.seed = n;
      last = Paint(executor, job, ++sample);
      waited += last.waited;
      if (last.status.ok()) continue;
      std::cerr << last.status << "\n";
      return 1;
    }
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
    std::cout << "{\"expert_memory\": " << load.expert_bytes
              << ", \"resident_experts\": " << model->resident_experts
              << ", \"weight_bytes\": " << model->weight_bytes
              << ", \"seconds\": " << wall.count() / pictures
              << ", \"waited_seconds\": " << absl::ToDoubleSeconds(waited) / pictures
              << ", \"resident_bytes\": " << ResidentBytes() << ", \"picture\": " << last.hash
              << "}" << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) {
  if (argc < 8) {
    std::cerr << "usage: bench_experts FOLDER DTYPE THREADS SIZE STEPS PICTURES BYTES...\n";
    return 2;
  }
  return hanmo::Main(argc, argv);
}
