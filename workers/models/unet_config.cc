#include "workers/models/unet_config.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "workers/models/model_config.h"

namespace hanmo {
namespace {

// Keys whose other values change the network's structure into one that is not built here.
void RefuseOtherStructures(ModelConfig& config) {
  config.Require("act_fn", config.String("act_fn", "silu") == "swish" ? "swish" : "silu");
  for (const char* key : {"only_cross_attention", "dual_cross_attention", "resnet_skip_time_act",
                          "class_embeddings_concat", "mid_block_only_cross_attention"}) {
    config.Require(key, false);
  }
  // null is the only value; any string names a structure.
  for (const char* key :
       {"encoder_hid_dim", "encoder_hid_dim_type", "class_embed_type", "addition_embed_type",
        "num_class_embeds", "time_embedding_dim", "time_embedding_act_fn", "timestep_post_act",
        "time_cond_proj_dim", "cross_attention_norm", "num_attention_heads",
        "reverse_transformer_layers_per_block"}) {
    config.Require(key, nullptr);
  }
  config.Require("resnet_time_scale_shift", "default");
  config.Require("resnet_out_scale_factor", 1.0);
  config.Require("time_embedding_type", "positional");
  config.Require("attention_type", "default");
}

bool Attends(ModelConfig& config, absl::string_view key, const std::string& type,
             absl::string_view direction) {
  if (type == absl::StrCat("CrossAttn", direction, "Block2D")) return true;
  if (type != absl::StrCat(direction, "Block2D")) {
    config.Fail(key, absl::StrCat(type, " is not supported; blocks are CrossAttn", direction,
                                  "Block2D or ", direction, "Block2D"));
  }
  return false;
}

UnetMiddle ReadMiddle(ModelConfig& config, const nlohmann::json& json) {
  const auto found = json.find("mid_block_type");
  if (found != json.end() && found->is_null()) return UnetMiddle::kNone;
  const std::string type = config.String("mid_block_type", "UNetMidBlock2DCrossAttn");
  if (type == "UNetMidBlock2DCrossAttn") return UnetMiddle::kAttends;
  if (type != "UNetMidBlock2D") {
    config.Fail("mid_block_type",
                absl::StrCat(type,
                             " is not supported; it must be UNetMidBlock2DCrossAttn, "
                             "UNetMidBlock2D or null"));
  }
  return UnetMiddle::kPlain;
}

std::vector<UnetLevel> ReadLevels(ModelConfig& config) {
  const std::vector<int64_t> channels =
      config.IntegerList("block_out_channels", {320, 640, 1280, 1280});
  const size_t count = channels.size();
  const std::vector<std::string> down = config.Strings(
      "down_block_types",
      {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"});
  const std::vector<std::string> up = config.Strings(
      "up_block_types",
      {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"});
  if (down.size() != count)
    config.Fail("down_block_types", "must be as many as block_out_channels");
  if (up.size() != count) config.Fail("up_block_types", "must be as many as block_out_channels");
  const std::vector<int64_t> layers = config.Integers("layers_per_block", count, 2, {1, 64});
  // The published key holds the number of heads, whatever its name says.
  const std::vector<int64_t> heads = config.Integers("attention_head_dim", count, 8, {1, 1024});
  const std::vector<int64_t> text = config.Integers("cross_attention_dim", count, 1280);
  const std::vector<int64_t> transformers =
      config.Integers("transformer_layers_per_block", count, 1, {1, 64});
  if (!config.status().ok()) return {};
  std::vector<UnetLevel> levels;
  for (size_t i = 0; i < count; ++i) {
    levels.push_back({.channels = channels[i],
                      .layers = layers[i],
                      .heads = heads[i],
                      .text_width = text[i],
                      .transformer_layers = transformers[i],
                      .down_attends = Attends(config, "down_block_types", down[i], "Down"),
                      .up_attends = Attends(config, "up_block_types", up[count - 1 - i], "Up")});
    if (channels[i] % heads[i] != 0) {
      config.Fail("attention_head_dim", absl::StrCat(heads[i], " heads do not divide ", channels[i],
                                                     " block_out_channels"));
    }
    if (text[i] != text[0]) config.Fail("cross_attention_dim", "must be one width for all blocks");
  }
  return levels;
}

// A number, or a pair of equal numbers.
int64_t ReadSampleSize(ModelConfig& config) {
  return config.Integers("sample_size", 2, 64, {1, 4096})[0];
}

}  // namespace

absl::StatusOr<UnetConfig> UnetConfig::FromJson(const nlohmann::json& json) {
  ModelConfig config(json, "unet");
  if (!config.status().ok()) return config.status();
  RefuseOtherStructures(config);
  UnetConfig unet;
  unet.in_channels = config.Integer("in_channels", 4, {1, 1024});
  unet.out_channels = config.Integer("out_channels", 4, {1, 1024});
  unet.sample_size = ReadSampleSize(config);
  unet.conv_in_kernel = config.Integer("conv_in_kernel", 3, {1, 15});
  unet.conv_out_kernel = config.Integer("conv_out_kernel", 3, {1, 15});
  unet.downsample_padding = config.Integer("downsample_padding", 1, {0, 1});
  unet.groups = config.Integer("norm_num_groups", 32, {1, 1024});
  unet.eps = config.Real("norm_eps", 1e-5, {0, 1});
  unet.middle_scale = config.Real("mid_block_scale_factor", 1, {1e-6, 1e6});
  unet.center_input = config.Boolean("center_input_sample", false);
  unet.flip_sin_to_cos = config.Boolean("flip_sin_to_cos", true);
  unet.freq_shift = config.Real("freq_shift", 0, {0, 1});
  unet.middle = ReadMiddle(config, json);
  unet.levels = ReadLevels(config);
  for (const char* key : {"conv_in_kernel", "conv_out_kernel"}) {
    if (config.Integer(key, 3) % 2 == 0) config.Fail(key, "must be odd");
  }
  const auto groups = json.find("norm_num_groups");
  if (groups != json.end() && groups->is_null()) {
    config.Fail("norm_num_groups", "null is not supported; it must be a number");
  }
  if (!config.status().ok()) return config.status();
  return unet;
}

}  // namespace hanmo
