// A loaded model and its samples inside the executor: PicturePipeline or TextPipeline.
#ifndef HANMO_WORKERS_PIPELINE_H_
#define HANMO_WORKERS_PIPELINE_H_

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/batcher/worker.h"
#include "server/worker_link/loaded_model.h"
#include "workers/device.h"

namespace hanmo {

// Called on the compute thread; at:: functions inside may throw, the executor catches at its
// border.
class Pipeline {
 public:
  virtual ~Pipeline() = default;

  virtual const LoadedModel& loaded() const = 0;
  // One small run of everything, so that the first request pays for no first-time set-up.
  virtual absl::Status WarmUp() = 0;

  // What is wrong with the sample is kept for its first step.
  virtual void Begin(SampleHandle sample, SampleJob job, Resume resume) = 0;
  // Fills `rows`, one result per row of the step and in its order, sample handles set. A status
  // means that no row advanced. A row that failed has lost its sample. At the yield points of a
  // picture step (kernels/yield.h) Begin, Save and Drop may be called, and find the samples as they
  // were before it.
  virtual absl::Status Run(const Step& step, std::vector<RowResult>* rows) = 0;
  // Nothing for samples without a state worth saving.
  virtual std::optional<SavePoint> Save(SampleHandle sample) = 0;
  virtual void Drop(SampleHandle sample) = 0;
};

// What a pipeline is loaded with.
struct PipelineOptions {
  std::string folder;
  const ComputeDevice* device = nullptr;  // outlives the pipeline
  at::ScalarType dtype = at::kFloat;
  bool deterministic = true;
  uint64_t kv_bytes = 0;            // texts; 0: chosen from the free memory
  uint32_t max_context_tokens = 0;  // texts; 0: what the model knows
};

// "float32", "float16", "bfloat16".
std::string DtypeName(at::ScalarType dtype);

}  // namespace hanmo

#endif  // HANMO_WORKERS_PIPELINE_H_
