// An executor without models, for tests of the link: every answer follows from the command.
#ifndef HANMO_WORKERS_TESTING_SCRIPTED_EXECUTOR_H_
#define HANMO_WORKERS_TESTING_SCRIPTED_EXECUTOR_H_

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/synchronization/notification.h"
#include "workers/executor.h"

namespace hanmo::testing {

// Load answers by the path: "bad" is INVALID_ARGUMENT, "crash" aborts the process, "text..." is a
// text model with 8 pages, anything else a picture model. A text row yields the token
// prompt[0] + (tokens emitted so far); a picture counts its steps and saves the count. Unknown
// handles fail their row. A picture step has 3 yield points, a few microseconds apart. Reading a
// path that begins with "held" waits for ReleaseReading.
class ScriptedExecutor final : public Executor {
 public:
  explicit ScriptedExecutor(std::string device) : device_(std::move(device)) {}

  WorkerHello Describe() const override;
  std::function<void()> Reading(const LoadCommand& load) override;
  absl::StatusOr<LoadedModel> Load(const LoadCommand& load) override;
  void Unload(ModelId model) override {}
  void Begin(SampleHandle sample, ModelId model, SampleJob job, Resume resume) override;
  StepResult RunInSlices(const Step& step, YieldListener* listener) override;
  DeviceMemory memory() const override { return {0, 0, samples_.size()}; }

  // Once, on any thread.
  void ReleaseReading() { released_.Notify(); }
  void AwaitReading() { reading_.WaitForNotification(); }
  std::vector<SavePoint> Save(const std::vector<SampleHandle>& samples) override;
  void Drop(const std::vector<SampleHandle>& samples) override;
  void Detach() override { samples_.clear(); }

 private:
  struct Sample {
    SampleJob job;
    uint32_t done = 0;  // tokens emitted or steps taken
  };
  RowResult RunRow(StepKind kind, const Row& row);

  const std::string device_;
  std::map<SampleHandle, Sample> samples_;
  absl::Notification reading_;  // a held path is being read
  absl::Notification released_;
};

}  // namespace hanmo::testing

#endif  // HANMO_WORKERS_TESTING_SCRIPTED_EXECUTOR_H_
