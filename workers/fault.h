// Deliberate deaths, for tests of the server's recovery with the real worker.
#ifndef HANMO_WORKERS_FAULT_H_
#define HANMO_WORKERS_FAULT_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "workers/executor.h"

namespace hanmo {

// The process aborts when a sample with `seed` takes part in its step number `step` on this worker
// (1 is the first of any kind, text encoding included).
struct Fault {
  uint64_t seed = 0;
  uint32_t step = 1;
};

// From "abort-on-seed:N" or "abort-on-seed:N@step:K"; INVALID_ARGUMENT otherwise.
absl::StatusOr<Fault> ParseFault(const std::string& text);

// Passes everything on to another executor until the fault comes due.
class FaultyExecutor final : public Executor {
 public:
  // `executor` outlives this one.
  FaultyExecutor(Fault fault, Executor* executor) : fault_(fault), executor_(executor) {}

  WorkerHello Describe() const override { return executor_->Describe(); }
  std::function<void()> Reading(const LoadCommand& load) override {
    return executor_->Reading(load);
  }
  absl::StatusOr<LoadedModel> Load(const LoadCommand& load) override;
  void Unload(ModelId model) override { executor_->Unload(model); }
  void Begin(SampleHandle sample, ModelId model, SampleJob job, Resume resume) override;
  StepResult RunInSlices(const Step& step, YieldListener* listener) override;
  DeviceMemory memory() const override { return executor_->memory(); }
  std::vector<SavePoint> Save(const std::vector<SampleHandle>& samples) override;
  void Drop(const std::vector<SampleHandle>& samples) override;
  void Detach() override;

 private:
  const Fault fault_;
  Executor* const executor_;
  std::map<SampleHandle, uint32_t> steps_;  // of the samples with the seed
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_FAULT_H_
