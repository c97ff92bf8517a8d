#include "workers/models/vae_config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "workers/models/model_config.h"

namespace hanmo {
namespace {

void RequireBlocks(ModelConfig& config, absl::string_view key, absl::string_view type,
                   size_t count) {
  const std::vector<std::string> blocks =
      config.Strings(key, std::vector<std::string>(1, std::string(type)));
  if (blocks.size() != count) config.Fail(key, "must be as many as block_out_channels");
  for (const std::string& block : blocks) {
    if (block != type) {
      config.Fail(key, absl::StrCat(block, " is not supported; every block must be ", type));
    }
  }
}

}  // namespace

absl::StatusOr<VaeConfig> VaeConfig::FromJson(const nlohmann::json& json) {
  ModelConfig config(json, "vae");
  VaeConfig vae;
  vae.picture_channels = config.Integer("in_channels", 3, {1, 16});
  if (config.Integer("out_channels", 3) != vae.picture_channels) {
    config.Fail("out_channels", "must equal in_channels");
  }
  vae.latent_channels = config.Integer("latent_channels", 4, {1, 1024});
  vae.channels = config.IntegerList("block_out_channels", {64});
  if (vae.channels.size() > 8) config.Fail("block_out_channels", "must have at most 8 blocks");
  RequireBlocks(config, "down_block_types", "DownEncoderBlock2D", vae.channels.size());
  RequireBlocks(config, "up_block_types", "UpDecoderBlock2D", vae.channels.size());
  vae.layers = config.Integer("layers_per_block", 1, {1, 64});
  vae.groups = config.Integer("norm_num_groups", 32, {1, 1024});
  vae.sample_size = config.Integers("sample_size", 2, 32, {1, 16384})[0];
  vae.scaling_factor = config.Real("scaling_factor", 0.18215, {1e-6, 1e6});
  vae.shift_factor = config.Real("shift_factor", 0, {-1e6, 1e6});
  vae.quant_conv = config.Boolean("use_quant_conv", true);
  vae.post_quant_conv = config.Boolean("use_post_quant_conv", true);
  vae.middle_attends = config.Boolean("mid_block_add_attention", true);
  config.Require("act_fn", config.String("act_fn", "silu") == "swish" ? "swish" : "silu");
  config.Require("latents_mean", nullptr);
  config.Require("latents_std", nullptr);
  if (!config.status().ok()) return config.status();
  return vae;
}

}  // namespace hanmo
