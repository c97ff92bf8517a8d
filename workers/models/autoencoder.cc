#include "workers/models/autoencoder.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace hanmo {
namespace {

constexpr double kEps = 1e-6;

int64_t SizeHint(const AutoencoderShape& shape, size_t level) {
  return std::max<int64_t>(1, shape.sample_size >> level);
}

ResnetShape ShapeOfResnet(const AutoencoderShape& shape, size_t level) {
  return {.in = shape.channels[level],
          .out = shape.channels[level],
          .groups = shape.groups,
          .eps = kEps,
          .size_hint = SizeHint(shape, level)};
}

// Which blocks are `attentive`; the others must be `plain`.
std::vector<bool> ReadBlocks(ModelConfig& config, absl::string_view key, absl::string_view plain,
                             absl::string_view attentive, size_t count) {
  const std::vector<std::string> blocks =
      config.Strings(key, std::vector<std::string>(1, std::string(plain)));
  if (blocks.size() != count) config.Fail(key, "must be as many as block_out_channels");
  std::vector<bool> attends;
  for (const std::string& block : blocks) {
    if (block != plain && block != attentive) {
      config.Fail(key, absl::StrCat(block, " is not supported; every block must be ", plain, " or ",
                                    attentive));
    }
    attends.push_back(block == attentive);
  }
  attends.resize(count);
  return attends;
}

at::Tensor RunBlocks(const AutoencoderLevel& level, at::Tensor hidden) {
  for (size_t i = 0; i < level.resnets.size(); ++i) {
    hidden = level.resnets[i](hidden, {});
    if (!level.attentions.empty()) hidden = level.attentions[i](hidden);
  }
  return hidden;
}

}  // namespace

AutoencoderShape ReadAutoencoderShape(ModelConfig& config) {
  AutoencoderShape shape;
  shape.picture_channels = config.Integer("in_channels", 3, {1, 16});
  if (config.Integer("out_channels", 3) != shape.picture_channels) {
    config.Fail("out_channels", "must equal in_channels");
  }
  shape.channels = config.IntegerList("block_out_channels", {64});
  if (shape.channels.size() > 8) config.Fail("block_out_channels", "must have at most 8 blocks");
  const size_t blocks = shape.channels.size();
  shape.down_attends = ReadBlocks(config, "down_block_types", "DownEncoderBlock2D",
                                  "AttnDownEncoderBlock2D", blocks);
  shape.up_attends =
      ReadBlocks(config, "up_block_types", "UpDecoderBlock2D", "AttnUpDecoderBlock2D", blocks);
  shape.layers = config.Integer("layers_per_block", 1, {1, 64});
  shape.groups = config.Integer("norm_num_groups", 32, {1, 1024});
  shape.sample_size = config.Integers("sample_size", 2, 32, {1, 16384})[0];
  shape.middle_attends = config.Boolean("mid_block_add_attention", true);
  config.Require("act_fn", config.String("act_fn", "silu") == "swish" ? "swish" : "silu");
  return shape;
}

absl::Status RenameOldAttention(Checkpoint& checkpoint) {
  return checkpoint.Rename([](absl::string_view name) {
    if (!absl::StrContains(name, "attentions.")) return std::string(name);
    return absl::StrReplaceAll(name, {{".query.", ".to_q."},
                                      {".key.", ".to_k."},
                                      {".value.", ".to_v."},
                                      {".proj_attn.", ".to_out.0."}});
  });
}

PixelAttention::PixelAttention(const WeightScope& weights, int64_t width, int64_t groups)
    : norm_(weights.Sub("group_norm"), width, groups, kEps),
      attention_(weights, AttentionShape{.width = width, .qkv_bias = true}) {}

at::Tensor PixelAttention::operator()(const at::Tensor& x) const {
  const at::Tensor tokens = attention_.Add(ToTokens(norm_(x)), {}, ToTokens(x));
  return ToPicture(tokens, x.size(2), x.size(3));
}

AutoencoderMiddle::AutoencoderMiddle(const WeightScope& weights, const AutoencoderShape& shape) {
  const int64_t width = shape.channels.back();
  const ResnetShape resnet = ShapeOfResnet(shape, shape.channels.size() - 1);
  resnets_.emplace_back(weights.Sub("resnets", 0), resnet);
  if (shape.middle_attends) attention_.emplace(weights.Sub("attentions", 0), width, shape.groups);
  resnets_.emplace_back(weights.Sub("resnets", 1), resnet);
}

at::Tensor AutoencoderMiddle::operator()(const at::Tensor& x) const {
  at::Tensor hidden = resnets_[0](x, {});
  if (attention_.has_value()) hidden = (*attention_)(hidden);
  return resnets_[1](hidden, {});
}

PictureDecoder::PictureDecoder(const WeightScope& weights, const AutoencoderShape& shape)
    : conv_in_(weights.Sub("conv_in"), {.in = shape.latent_channels,
                                        .out = shape.channels.back(),
                                        .size_hint = SizeHint(shape, shape.channels.size() - 1)}),
      middle_(weights.Sub("mid_block"), shape),
      norm_out_(weights.Sub("conv_norm_out"), shape.channels[0], shape.groups, kEps),
      conv_out_(weights.Sub("conv_out"), {.in = shape.channels[0],
                                          .out = shape.picture_channels,
                                          .size_hint = shape.sample_size}) {
  const size_t count = shape.channels.size();
  for (size_t i = 0; i < count; ++i) {
    const size_t level = count - 1 - i;
    const WeightScope from = weights.Sub("up_blocks", i);
    AutoencoderLevel& built = levels_.emplace_back();
    for (int64_t j = 0; j <= shape.layers; ++j) {
      ResnetShape resnet = ShapeOfResnet(shape, level);
      if (j == 0) resnet.in = shape.channels[std::min(level + 1, count - 1)];
      built.resnets.emplace_back(from.Sub("resnets", j), resnet);
      if (!shape.up_attends[i]) continue;
      built.attentions.emplace_back(from.Sub("attentions", j), resnet.out, shape.groups);
    }
    if (level > 0) {
      built.upsample.emplace(from.Sub("upsamplers", 0), shape.channels[level],
                             SizeHint(shape, level - 1));
    }
  }
}

at::Tensor PictureDecoder::operator()(const at::Tensor& latents) const {
  at::Tensor hidden = middle_(conv_in_(latents));
  for (const AutoencoderLevel& level : levels_) {
    hidden = RunBlocks(level, std::move(hidden));
    if (level.upsample.has_value()) {
      hidden = (*level.upsample)(hidden, 2 * hidden.size(2), 2 * hidden.size(3));
    }
  }
  return conv_out_(norm_out_.Silu(hidden));
}

PictureEncoder::PictureEncoder(const WeightScope& weights, const AutoencoderShape& shape,
                               int64_t out)
    : conv_in_(
          weights.Sub("conv_in"),
          {.in = shape.picture_channels, .out = shape.channels[0], .size_hint = shape.sample_size}),
      middle_(weights.Sub("mid_block"), shape),
      norm_out_(weights.Sub("conv_norm_out"), shape.channels.back(), shape.groups, kEps),
      conv_out_(weights.Sub("conv_out"),
                {.in = shape.channels.back(),
                 .out = out,
                 .size_hint = SizeHint(shape, shape.channels.size() - 1)}) {
  for (size_t level = 0; level < shape.channels.size(); ++level) {
    const WeightScope from = weights.Sub("down_blocks", level);
    AutoencoderLevel& built = levels_.emplace_back();
    for (int64_t j = 0; j < shape.layers; ++j) {
      ResnetShape resnet = ShapeOfResnet(shape, level);
      if (j == 0 && level > 0) resnet.in = shape.channels[level - 1];
      built.resnets.emplace_back(from.Sub("resnets", j), resnet);
      if (!shape.down_attends[level]) continue;
      built.attentions.emplace_back(from.Sub("attentions", j), resnet.out, shape.groups);
    }
    if (level + 1 < shape.channels.size()) {
      built.downsample.emplace(from.Sub("downsamplers", 0), shape.channels[level], 0,
                               SizeHint(shape, level));
    }
  }
}

at::Tensor PictureEncoder::operator()(const at::Tensor& pictures) const {
  at::Tensor hidden = conv_in_(pictures);
  for (const AutoencoderLevel& level : levels_) {
    hidden = RunBlocks(level, std::move(hidden));
    if (level.downsample.has_value()) hidden = (*level.downsample)(hidden);
  }
  return conv_out_(norm_out_.Silu(middle_(hidden)));
}

}  // namespace hanmo
