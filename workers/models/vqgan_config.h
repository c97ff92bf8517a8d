// The shape of a picture tokenizer, read from its config.json.
#ifndef HANMO_WORKERS_MODELS_VQGAN_CONFIG_H_
#define HANMO_WORKERS_MODELS_VQGAN_CONFIG_H_

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "workers/models/autoencoder.h"

namespace hanmo {

struct VqganConfig {
  AutoencoderShape shape;
  int64_t codes = 256;
  int64_t code_width = 3;

  // INVALID_ARGUMENT names the key that is malformed or not supported.
  static absl::StatusOr<VqganConfig> FromJson(const nlohmann::json& json);
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_VQGAN_CONFIG_H_
