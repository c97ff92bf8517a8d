// The executor that runs models on libtorch: the border where its exceptions end.
#ifndef HANMO_WORKERS_TORCH_EXECUTOR_H_
#define HANMO_WORKERS_TORCH_EXECUTOR_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "workers/device.h"
#include "workers/executor.h"
#include "workers/pipeline.h"

namespace hanmo {

class TorchExecutor final : public Executor {
 public:
  explicit TorchExecutor(ComputeDevice device) : device_(std::move(device)) {}

  WorkerHello Describe() const override;
  std::function<void()> Reading(const LoadCommand& load) override;
  // By the folder's files: model_index.json is a pipeline by its _class_name, of ERNIE-ViLG or of
  // denoised pictures; a config.json with the model_type of a text model (text_model.h) is one.
  absl::StatusOr<LoadedModel> Load(const LoadCommand& load) override;
  void Unload(ModelId model) override;
  void Begin(SampleHandle sample, ModelId model, SampleJob job, Resume resume) override;
  // On a CPU; elsewhere nobody is told: operators are only queued, and a step is short.
  StepResult RunInSlices(const Step& step, YieldListener* listener) override;
  DeviceMemory memory() const override { return device_.memory(); }
  std::vector<SavePoint> Save(const std::vector<SampleHandle>& samples) override;
  void Drop(const std::vector<SampleHandle>& samples) override;
  void Detach() override;

 private:
  // A loaded model outlives the server that asked for it; the next may find it by its key.
  struct Entry {
    std::string key;  // folder and settings
    std::unique_ptr<Pipeline> pipeline;
  };

  std::vector<Entry>::iterator FindKept(const LoadCommand& load);
  // Also on the loading thread.
  absl::StatusOr<Entry> Read(const LoadCommand& load) const;
  absl::StatusOr<std::unique_ptr<Pipeline>> LoadPipeline(const PipelineOptions& options) const;
  void DropSample(SampleHandle sample);

  const ComputeDevice device_;
  std::map<ModelId, Entry> models_;
  // Written on the loading thread until Load.
  std::map<ModelId, std::shared_ptr<absl::StatusOr<Entry>>> readings_;
  std::vector<Entry> kept_;                  // without a server; at most what one server loaded
  std::map<SampleHandle, ModelId> samples_;  // where each sample lives
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_TORCH_EXECUTOR_H_
