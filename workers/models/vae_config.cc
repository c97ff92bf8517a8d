#include "workers/models/vae_config.h"

#include "workers/models/model_config.h"

namespace hanmo {

absl::StatusOr<VaeConfig> VaeConfig::FromJson(const nlohmann::json& json) {
  ModelConfig config(json, "vae");
  VaeConfig vae;
  vae.shape = ReadAutoencoderShape(config);
  vae.shape.latent_channels = config.Integer("latent_channels", 4, {1, 1024});
  vae.scaling_factor = config.Real("scaling_factor", 0.18215, {1e-6, 1e6});
  vae.shift_factor = config.Real("shift_factor", 0, {-1e6, 1e6});
  vae.quant_conv = config.Boolean("use_quant_conv", true);
  vae.post_quant_conv = config.Boolean("use_post_quant_conv", true);
  config.Require("latents_mean", nullptr);
  config.Require("latents_std", nullptr);
  if (!config.status().ok()) return config.status();
  return vae;
}

}  // namespace hanmo
