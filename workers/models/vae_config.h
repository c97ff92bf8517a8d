// The shape of an autoencoder, read from its config.json.
#ifndef HANMO_WORKERS_MODELS_VAE_CONFIG_H_
#define HANMO_WORKERS_MODELS_VAE_CONFIG_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/statusor.h"

namespace hanmo {

struct VaeConfig {
  int64_t picture_channels = 3;
  int64_t latent_channels = 4;
  int64_t layers = 1;
  int64_t groups = 32;
  int64_t sample_size = 32;  // of pictures
  double scaling_factor = 0.18215;
  double shift_factor = 0;
  bool quant_conv = true;
  bool post_quant_conv = true;
  bool middle_attends = true;
  std::vector<int64_t> channels;  // from the full size to the smallest

  // INVALID_ARGUMENT names the key that is malformed or not supported.
  static absl::StatusOr<VaeConfig> FromJson(const nlohmann::json& json);
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_VAE_CONFIG_H_
