// What the batcher tells the telemetry: numbers only, never contents.
#ifndef HANMO_SERVER_BATCHER_OBSERVER_H_
#define HANMO_SERVER_BATCHER_OBSERVER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/batcher/cost.h"
#include "server/batcher/request.h"
#include "server/batcher/sink.h"
#include "server/batcher/worker.h"

namespace hanmo {

enum class Rejection { kQueueFull, kDraining, kNoWorker, kDeadline };

// A text that ended well.
struct TextEnd {
  SampleEnd end = SampleEnd::kEos;
  uint32_t prompt_tokens = 0;
  uint32_t tokens = 0;    // written; at least 1
  absl::Duration decode;  // from the first of them to the last
};

// Called on the batcher's thread; must return within a microsecond or two.
class BatcherObserver {
 public:
  virtual ~BatcherObserver() = default;
  virtual void OnRejected(ModelId model, Rejection reason) {}
  // A request's first step was sent.
  virtual void OnStarted(ModelId model, absl::Duration queued) {}
  virtual void OnStep(WorkerId worker, const Step& step, const StepResult& result) {}
  // Prefill of one text, from its first chunk's plan to its first token.
  virtual void OnPrefill(ModelId model, absl::Duration time, uint32_t tokens) {}
  // A text began with so many of its tokens in shared pages.
  virtual void OnPrefixHit(ModelId model, uint32_t tokens) {}
  virtual void OnFirstToken(ModelId model, absl::Duration since_arrival) {}
  virtual void OnInterToken(ModelId model, absl::Duration gap) {}
  virtual void OnTextEnd(ModelId model, const TextEnd& end) {}
  // A text gave its pages to another and will be computed again.
  virtual void OnPreempted(ModelId model) {}
  virtual void OnCancelled(ModelId model) {}
  virtual void OnDeadlineMissed(ModelId model, bool was_running) {}
  virtual void OnDone(ModelId model, absl::StatusCode code, const Usage& usage,
                      absl::Duration total) {}
  // Requests waiting and running, after each tick that changed them.
  virtual void OnLoad(ModelId model, uint32_t waiting, uint32_t running) {}
  // What steps of the model cost, as learned by now; once a second at most.
  virtual void OnCosts(ModelId model, std::vector<StepCosts::Description> costs) {}
  virtual void OnPages(WorkerId worker, ModelId model, uint32_t used, uint32_t total) {}
  // The queue is full, or is not so any more: that is when a quarter of it is free.
  virtual void OnOverload(bool overloaded) {}
  virtual void OnTick(absl::Duration time) {}
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_OBSERVER_H_
