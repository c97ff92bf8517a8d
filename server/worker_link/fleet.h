// The fleet: starts hanmo-worker processes (or attaches to running ones), loads the models into
// them, carries the batcher's commands over gRPC, and brings dead workers back.
//
// Threads: one per worker (it starts the process, waits for its end and for the back-off), and
// gRPC's, on which events arrive. Commands are sent from the batcher's thread without waiting.
#ifndef HANMO_SERVER_WORKER_LINK_FLEET_H_
#define HANMO_SERVER_WORKER_LINK_FLEET_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/batcher/batcher.h"
#include "server/worker_link/loaded_model.h"
#include "server/worker_link/worker_events.h"

namespace hanmo {

// A model to load into every worker.
struct FleetModel {
  ModelId id = 0;
  std::string name;
  std::string path;  // folder of the checkpoint
};

struct FleetOptions {
  // Spawn mode: the program to start, once per entry of `devices`, on an inherited socket pair. The
  // child ends with the server.
  std::string worker_program;
  std::vector<std::string> devices;  // "cpu", "cuda:0", ...
  uint32_t worker_threads = 0;       // compute threads per worker; 0 shares the cores among them
  std::vector<std::string> worker_args;  // passed on as they are

  // Attach mode: addresses of running workers: "unix:/run/hanmo/worker.sock", "tls:host:port", or
  // "host:port" in clear on loopback.
  std::vector<std::string> attach;
  // PEM files for "tls:": what checks the worker, and what shows the server to it (mutual TLS).
  std::string tls_ca_file;
  std::string tls_certificate_file;
  std::string tls_key_file;

  std::string dtype;                  // "", "float32", "float16" or "bfloat16"
  std::optional<bool> deterministic;  // nullopt: where it costs nothing, on CPUs
  uint64_t kv_bytes = 0;              // KV pages per worker and text model; 0: the worker chooses
  uint64_t expert_bytes = 0;          // experts in memory per worker and picture model; 0: all
  uint32_t max_context_tokens = 0;    // of text models; 0: their own

  // A worker that dies is started again after min_backoff, doubled up to max_backoff while it keeps
  // dying within stable_after.
  absl::Duration min_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(30);
  absl::Duration stable_after = absl::Seconds(60);
};

// Called from the fleet's threads; must not block for long.
class FleetObserver {
 public:
  virtual ~FleetObserver() = default;
  virtual void OnModelLoaded(WorkerId worker, ModelId model, const LoadedModel& loaded) = 0;
  // The checkpoint is at fault, or it ended the worker three times while it was being loaded; this
  // worker does not try it again.
  virtual void OnModelFailed(WorkerId worker, ModelId model, const absl::Status& status) = 0;
  // The worker has freed its memory. A worker that is lost meanwhile has, too.
  virtual void OnModelUnloaded(WorkerId worker, ModelId model) {}
  // `memory` is that of its device.
  virtual void OnWorkerUp(WorkerId worker, const std::string& device, uint64_t memory) {}
  // `reason` says how it ended: exit code, signal, lost connection. Also called when a worker could
  // not be started; of the failed attempts to reach an attached one, only for the first in a row.
  virtual void OnWorkerLost(WorkerId worker, const std::string& reason) = 0;
};

class Fleet {
 public:
  // `batcher` and `observer` outlive the fleet. Worker ids are 0, 1, ... in the order of `devices`,
  // then of `attach`.
  Fleet(FleetOptions options, std::vector<FleetModel> models, Batcher* batcher,
        FleetObserver* observer);
  // The same without a batcher, for tests: `events` outlives the fleet.
  Fleet(FleetOptions options, std::vector<FleetModel> models, WorkerEvents* events,
        FleetObserver* observer);
  // Ends the workers it started: TERM, then KILL after a second; waits for them. Attached workers
  // live on.
  ~Fleet();
  Fleet(const Fleet&) = delete;
  Fleet& operator=(const Fleet&) = delete;

  // Starts every worker; returns without waiting for them. INVALID_ARGUMENT or NOT_FOUND when the
  // options can't work (no such program, malformed address).
  absl::Status Start();

  // --- After Start, from one thread at a time.

  // Loads one more model into every worker, also those that come later.
  void Load(const FleetModel& model);
  // From now on no worker is reported to have the model, nor loads it anew.
  void Forget(ModelId model);
  // Frees a forgotten model's memory: no command for it may follow. Returns the workers that will
  // report OnModelUnloaded, unless they are lost first.
  std::vector<WorkerId> Unload(ModelId model);

 private:
  class Member;
  class FailureBoard;
  class ModelList;

  absl::Status CheckOptions() const;

  const FleetOptions options_;
  const std::unique_ptr<ModelList> models_;
  std::unique_ptr<WorkerEvents> batcher_events_;  // null in tests
  WorkerEvents* const events_;
  FleetObserver* const observer_;
  std::unique_ptr<FailureBoard> failures_;
  std::vector<std::unique_ptr<Member>> members_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_WORKER_LINK_FLEET_H_
