// What a worker does with the commands of its stream, without the stream: models and samples live
// here, one step at a time. torch_executor.h runs them on libtorch; tests use a scripted one.
//
// Called on the worker's compute thread only, but for what Reading returns. Input never ends the
// process: what can't be done is a status, of the whole step or of one row.
#ifndef HANMO_WORKERS_EXECUTOR_H_
#define HANMO_WORKERS_EXECUTOR_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "server/batcher/request.h"
#include "server/batcher/worker.h"
#include "server/worker_link/loaded_model.h"
#include "workers/kernels/yield.h"

namespace hanmo {

class Executor {
 public:
  virtual ~Executor() = default;

  // The device and the build; pid is filled in by the service. Thread-safe.
  virtual WorkerHello Describe() const = 0;

  // What is to run before Load, on the loading thread and beside everything else here: it reads the
  // checkpoint, which takes long. Null: Load need not wait. Unload and Detach make it vain.
  virtual std::function<void()> Reading(const LoadCommand& load) { return nullptr; }
  // Loads (what Reading has not) and warms up a model. A model already loaded under another id,
  // from the same folder with the same settings, is taken over: a new server finds its weights in
  // place. INVALID_ARGUMENT or NOT_FOUND for a checkpoint that can't be served, naming the tensor
  // or the field; RESOURCE_EXHAUSTED when it does not fit.
  virtual absl::StatusOr<LoadedModel> Load(const LoadCommand& load) = 0;
  // Forgets the model and its samples; unknown ids are ignored.
  virtual void Unload(ModelId model) = 0;

  // Makes a sample known. Whatever is wrong with it is reported in the result of its first step.
  virtual void Begin(SampleHandle sample, ModelId model, SampleJob job, Resume resume) = 0;
  // One row result per row, in order, or a status for all of them. Times, the device's memory and
  // the step's budget are the service's.
  StepResult Run(const Step& step) { return RunInSlices(step, nullptr); }
  // The same, telling `listener` (null: nobody) at the yield points of picture steps. From there
  // everything here may be called but Unload, Load and Detach of the step's own model; the samples
  // are as they were before the step. A row whose sample is dropped meanwhile has a status of its
  // own. An abandoned step advances no row and ends with a status.
  virtual StepResult RunInSlices(const Step& step, YieldListener* listener) = 0;
  // Of the samples that have something to save; the others are left out.
  virtual std::vector<SavePoint> Save(const std::vector<SampleHandle>& samples) = 0;
  // As it is now. May take a tenth of a millisecond.
  virtual DeviceMemory memory() const { return {}; }
  // Unknown handles are ignored.
  virtual void Drop(const std::vector<SampleHandle>& samples) = 0;

  // The server is gone: forgets every sample and every model id, keeps the weights for the next.
  virtual void Detach() = 0;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_EXECUTOR_H_
