#include "workers/models/vqgan_config.h"

#include "workers/models/model_config.h"

namespace hanmo {

absl::StatusOr<VqganConfig> VqganConfig::FromJson(const nlohmann::json& json) {
  ModelConfig config(json, "vqvae");
  VqganConfig vqgan;
  vqgan.shape = ReadAutoencoderShape(config);
  vqgan.shape.latent_channels = config.Integer("latent_channels", 3, {1, 4096});
  vqgan.codes = config.Integer("num_vq_embeddings", 256, {1, 1e6});
  vqgan.code_width = config.Integer("vq_embed_dim", vqgan.shape.latent_channels, {1, 4096});
  config.Require("norm_type", "group");
  if (!config.status().ok()) return config.status();
  return vqgan;
}

}  // namespace hanmo
