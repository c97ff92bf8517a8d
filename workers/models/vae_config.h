// The shape of an autoencoder, read from its config.json.
#ifndef HANMO_WORKERS_MODELS_VAE_CONFIG_H_
#define HANMO_WORKERS_MODELS_VAE_CONFIG_H_

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "workers/models/autoencoder.h"

namespace hanmo {

struct VaeConfig {
  AutoencoderShape shape;
  double scaling_factor = 0.18215;
  double shift_factor = 0;
  bool quant_conv = true;
  bool post_quant_conv = true;

  // INVALID_ARGUMENT names the key that is malformed or not supported.
  static absl::StatusOr<VaeConfig> FromJson(const nlohmann::json& json);
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_VAE_CONFIG_H_
