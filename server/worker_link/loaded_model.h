// What the two ends of a worker link tell each other at the start, as plain values.
#ifndef HANMO_SERVER_WORKER_LINK_LOADED_MODEL_H_
#define HANMO_SERVER_WORKER_LINK_LOADED_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "server/batcher/request.h"
#include "server/batcher/worker.h"

namespace hanmo {

// What a worker says about itself in the handshake; see hanmo.worker.v1.HelloReply.
struct WorkerHello {
  std::string device;       // "cpu", "cuda:0", ...
  std::string device_name;  // of the processor or GPU
  DeviceMemory memory;
  uint32_t pid = 0;
  std::string build;  // of the numerics: equal builds give equal bytes
};

// Asks a worker for a model; see hanmo.worker.v1.Load.
struct LoadCommand {
  ModelId model = 0;
  std::string path;
  std::string dtype;  // empty: the device's default
  bool deterministic = true;
  uint64_t kv_bytes = 0;            // 0: the worker chooses
  uint32_t max_context_tokens = 0;  // 0: the model's own
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
  uint32_t latent_channels = 0;
  uint32_t default_size = 0;
  uint32_t prompt_tokens = 0;
  std::string default_sampler;
  std::vector<std::string> samplers;
  bool has_reranker = false;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_WORKER_LINK_LOADED_MODEL_H_
