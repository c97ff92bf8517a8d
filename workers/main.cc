// hanmo-worker: runs the steps of generative models for hanmo-server.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "workers/device.h"
#include "workers/serving.h"
#include "workers/torch_executor.h"
#include "workers/working_memory.h"

namespace {

// libgomp's threads wait for each other by spinning, by default for milliseconds: on cores that are
// shared with anything else a step then takes many times as long (measured: 100 times, 2 threads on
// 2 cores busy with other programs). About 50 microseconds keep the gain of spinning between two
// operators. libgomp reads its settings before main, hence a second start where the server (or the
// container) has not set one.
void LimitSpinning(char** argv) {
  if (getenv("GOMP_SPINCOUNT") != nullptr || getenv("OMP_WAIT_POLICY") != nullptr) return;
  setenv("GOMP_SPINCOUNT", "2000", 1);
  char program[4096] = {};
  // By its path, as the process is named after it.
  if (readlink("/proc/self/exe", program, sizeof(program) - 1) > 0) execv(program, argv);
  // Without a second start everything still works.
}

// MKL, which libtorch multiplies with where our kernels do not serve, takes another order of
// summation on some processors (AMD's) when a row lies otherwise in memory. This keeps it to one.
void KeepOrderOfSummation() { setenv("MKL_CBWR", "AUTO", 0); }

int Fail(const absl::Status& status) {
  fprintf(stderr, "hanmo-worker: %s\n", std::string(status.message()).c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  KeepOrderOfSummation();
  LimitSpinning(argv);
  hanmo::ConfigureAllocator();
  hanmo::CountTensorMemory();
  const hanmo::WorkerOptions options = hanmo::ParseWorkerFlags(argc, argv);
  if (options.fd >= 0) hanmo::DieWithParent();
  absl::StatusOr<hanmo::ComputeDevice> device = hanmo::ComputeDevice::Open(options.device);
  if (!device.ok()) return Fail(device.status());
  hanmo::TorchExecutor executor(*std::move(device));
  const absl::Status status = hanmo::ServeWorker(
      options, &executor, [&] { hanmo::SetComputeThreads(static_cast<int>(options.threads)); });
  return status.ok() ? 0 : Fail(status);
}
