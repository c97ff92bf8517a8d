// The batcher: all policy of the server. It owns the queue, the running samples, the KV pages of
// every worker and the save points; it decides each step and the workers execute it.
//
//   front end ── Submit/Cancel ──▶ inbox ─▶ Tick ─▶ WorkerLink::Begin/Run/Save/Drop ─▶ worker
//   Sink ◀── tokens, steps, pictures ── Tick ◀─ inbox ◀── StepDone/Saved/WorkerLost ──┘
//
// Std and abseil only, no threads and no clock of its own: BatcherLoop (batcher_loop.h) drives it
// in the server, tests call Tick by hand. "The batcher's thread" is whichever ticks at the moment.
#ifndef HANMO_SERVER_BATCHER_BATCHER_H_
#define HANMO_SERVER_BATCHER_BATCHER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/batcher/cost.h"
#include "server/batcher/observer.h"
#include "server/batcher/policy.h"
#include "server/batcher/request.h"
#include "server/batcher/sink.h"
#include "server/batcher/worker.h"

namespace hanmo {

struct BatcherOptions {
  PolicyOptions policy;
  // Shares of tenants against each other; 1 for who is not named.
  absl::flat_hash_map<std::string, double> tenant_weights;
  // Requests waiting for their first step, at most; one more is refused with RESOURCE_EXHAUSTED.
  uint32_t max_queued_requests = 1024;
  // Predicted device time of the waiting requests, per worker, at most; likewise.
  absl::Duration max_queued_work = absl::Minutes(10);
  // Samples of one model begun on one worker at most; the rest waits in the queue.
  uint32_t max_running_samples = 64;
  // Pictures in one denoising or VAE step at most. The batcher stays at the knee of the measured
  // curve: past the point where the device is full a larger batch only adds latency.
  uint32_t max_picture_batch = 8;
  // Pictures in one step while nothing is measured yet.
  uint32_t cold_picture_batch = 1;
  // Prompt tokens of one text step at most, over all rows.
  uint32_t prefill_chunk_tokens = 512;
  // Pages of texts that ended are kept up to so many bytes per model and worker, for texts of the
  // same tenant that begin alike; 0 shares nothing.
  uint64_t prefix_cache_bytes = 0;
  // Tokens that a worker may guess and run along in one row; 0 guesses nothing.
  uint32_t speculative_tokens = 0;
  // Steps sent to a worker before the result of the first is back.
  uint32_t steps_in_flight = 2;
  // Denoising steps between two save points of a picture; at most this many are redone after a
  // worker's death.
  uint32_t save_interval_steps = 5;
  // A sample parked by a slow reader for this long gives its place and KV pages back and is begun
  // again, from its emitted tokens or its save point, when the reader has caught up.
  absl::Duration max_parked = absl::Seconds(10);
};

class Batcher {
 public:
  // `observer` outlives the batcher. `wake` is called, from any thread, when the inbox gets its
  // first entry: somebody should tick soon.
  Batcher(BatcherOptions options, BatcherObserver* observer, std::function<void()> wake);
  ~Batcher();
  Batcher(const Batcher&) = delete;
  Batcher& operator=(const Batcher&) = delete;

  // --- Thread-safe; each puts a message into the inbox and returns at once. ---

  // Takes the request over. The sink gets OnDone exactly once, also when it is refused:
  // RESOURCE_EXHAUSTED (queue full, or the deadline can't be met), UNAVAILABLE (draining, or no
  // worker has the model), DEADLINE_EXCEEDED, CANCELLED, INTERNAL (aboard at two deaths; non-finite
  // output).
  RequestId Submit(Request request, std::shared_ptr<Sink> sink);
  // Ends the request at the next tick with `reason`, CANCELLED or DEADLINE_EXCEEDED; unknown or
  // ended ids are ignored.
  void Cancel(RequestId id, absl::Status reason = absl::CancelledError("cancelled by the client"));
  // A full sink has room again.
  void Wake(RequestId id);

  // A worker is connected; it serves a model after ModelReady. Workers with the same name of
  // `device` are taken to be equally fast.
  void AddWorker(WorkerId worker, std::shared_ptr<WorkerLink> link, std::string device = "");
  void ModelReady(WorkerId worker, ModelId model, ModelCapacity capacity);
  // The worker died: its samples go on elsewhere, or on its successor, from their save points.
  void WorkerLost(WorkerId worker);
  // `model` will not come back: its requests end with UNAVAILABLE.
  void ModelFailed(ModelId model);
  // Forgets the model, on all workers; its requests, if there still are any, end with UNAVAILABLE.
  // `removed` is called on the batcher's thread when no command will name the model any more.
  void RemoveModel(ModelId model, std::function<void()> removed);
  // `to` is another version of `from`: what is known of its costs holds until more is.
  void InheritCosts(ModelId from, ModelId to);
  // Takes the model from all workers, unless it has requests; its requests wait until it is ready
  // again. `done` tells whether it did; then `wanted` is called once, when a request comes. Both on
  // the batcher's thread.
  void RestModel(ModelId model, std::function<void(bool)> done, std::function<void()> wanted);
  void StepDone(WorkerId worker, StepResult result);
  void Saved(WorkerId worker, SavePoint save_point);

  // Refuses new requests with UNAVAILABLE; what was accepted is finished.
  void Drain();
  // Ends every request with UNAVAILABLE at the next tick.
  void Abort();

  // --- One thread at a time: the loop (batcher_loop.h) or a test. ---

  // Handles the inbox, drops what was cancelled or expired, begins what fits, and keeps every
  // worker's steps in flight. Touches only the workers that something happened to; independent of
  // the queue's length.
  void Tick(absl::Time now);
  // The next instant at which Tick has something to do without a message; InfiniteFuture if none.
  absl::Time NextDeadline() const;
  // The links of the workers lost since the last call, for the caller to destroy.
  std::vector<std::shared_ptr<WorkerLink>> TakeLost();
  // No request is queued or running.
  bool idle() const;
  // True when Submit or a result came since the last Tick. Thread-safe.
  bool pending() const;

 private:
  class Core;
  std::unique_ptr<Core> core_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_BATCHER_H_
