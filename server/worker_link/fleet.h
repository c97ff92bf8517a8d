// The fleet: starts hanmo-worker processes (or attaches to running ones), loads the models into
// them, carries the batcher's commands over gRPC, and brings dead workers back.
#ifndef HANMO_SERVER_WORKER_LINK_FLEET_H_
#define HANMO_SERVER_WORKER_LINK_FLEET_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/batcher/batcher.h"

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

  // Attach mode: addresses of running workers ("unix:/run/hanmo/worker.sock", "host:port").
  std::vector<std::string> attach;

  std::string dtype;          // "", "float32", "float16" or "bfloat16"
  bool deterministic = true;
  uint64_t kv_bytes = 0;      // KV pages per worker and text model; 0: the worker chooses

  // A worker that dies is started again after min_backoff, doubled up to max_backoff while it keeps
  // dying within stable_after.
  absl::Duration min_backoff = absl::Milliseconds(100);
  absl::Duration max_backoff = absl::Seconds(30);
  absl::Duration stable_after = absl::Seconds(60);
};

// What a worker reported about a loaded model; see hanmo.worker.v1.Loaded.
struct LoadedModel {
  std::string architecture;
  std::string dtype;
  uint64_t weight_bytes = 0;
  double load_seconds = 0;
  // Texts; context_tokens is 0 for a picture model.
  uint32_t context_tokens = 0;
  uint32_t vocabulary_size = 0;
  uint32_t page_tokens = 0;
  uint64_t page_bytes = 0;
  uint32_t pages = 0;
  // Pictures; latent_factor is 0 for a text model.
  uint32_t latent_factor = 0;
  uint32_t default_size = 0;
  uint32_t prompt_tokens = 0;
  std::string default_sampler;
  std::vector<std::string> samplers;
};

// Called from the fleet's threads.
class FleetObserver {
 public:
  virtual ~FleetObserver() = default;
  virtual void OnModelLoaded(WorkerId worker, ModelId model, const LoadedModel& loaded) = 0;
  // The checkpoint is at fault; it is not tried again.
  virtual void OnModelFailed(WorkerId worker, ModelId model, const absl::Status& status) = 0;
  virtual void OnWorkerUp(WorkerId worker, const std::string& device) {}
  // `reason` says how it ended: exit code, signal, lost connection.
  virtual void OnWorkerLost(WorkerId worker, const std::string& reason) = 0;
};

class Fleet {
 public:
  // `batcher` and `observer` outlive the fleet.
  Fleet(FleetOptions options, std::vector<FleetModel> models, Batcher* batcher,
        FleetObserver* observer);
  // Ends the workers: TERM, then KILL after a second; waits for them.
  ~Fleet();

  // Starts every worker; returns without waiting for them. INVALID_ARGUMENT or NOT_FOUND when the
  // options can't work (no such program, malformed address).
  absl::Status Start();

 private:
  class Member;
  FleetOptions options_;
  std::vector<FleetModel> models_;
  Batcher* batcher_;
  FleetObserver* observer_;
  std::vector<std::unique_ptr<Member>> members_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_WORKER_LINK_FLEET_H_
