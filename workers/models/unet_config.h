// The shape of a UNet, read from its config.json.
#ifndef HANMO_WORKERS_MODELS_UNET_CONFIG_H_
#define HANMO_WORKERS_MODELS_UNET_CONFIG_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/status/statusor.h"

namespace hanmo {

// One level of the UNet; `up` describes the block of the decoding half at the same width.
struct UnetLevel {
  int64_t channels = 320;
  int64_t layers = 2;
  int64_t heads = 8;
  int64_t text_width = 768;
  int64_t transformer_layers = 1;
  bool down_attends = true;
  bool up_attends = true;
};

enum class UnetMiddle { kNone, kPlain, kAttends };

struct UnetConfig {
  int64_t in_channels = 4;
  int64_t out_channels = 4;
  int64_t sample_size = 64;
  int64_t conv_in_kernel = 3;
  int64_t conv_out_kernel = 3;
  int64_t downsample_padding = 1;
  int64_t groups = 32;
  double eps = 1e-5;
  double middle_scale = 1;
  bool center_input = false;
  bool flip_sin_to_cos = true;
  double freq_shift = 0;
  UnetMiddle middle = UnetMiddle::kAttends;
  std::vector<UnetLevel> levels;  // from the full size to the smallest

  // INVALID_ARGUMENT names the key that is malformed or asks for something else than the UNet of
  // Stable Diffusion 1.x.
  static absl::StatusOr<UnetConfig> FromJson(const nlohmann::json& json);
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_UNET_CONFIG_H_
