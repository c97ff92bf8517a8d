#include "workers/models/vae.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_replace.h"
#include "workers/models/vae_config.h"
#include "workers/nn/attention.h"
#include "workers/nn/conv2d.h"
#include "workers/nn/norm.h"
#include "workers/nn/onednn.h"
#include "workers/nn/picture_blocks.h"

namespace hanmo {
namespace {

constexpr double kEps = 1e-6;

int64_t SizeHint(const VaeConfig& config, size_t level) {
  return std::max<int64_t>(1, config.sample_size >> level);
}

ResnetShape ShapeOfResnet(const VaeConfig& config, size_t level) {
  return {.in = config.channels[level],
          .out = config.channels[level],
          .groups = config.groups,
          .eps = kEps,
          .size_hint = SizeHint(config, level)};
}

// Residual block, self attention over all pixels with one head, residual block.
class Middle {
 public:
  Middle(const WeightScope& weights, const VaeConfig& config) {
    const int64_t width = config.channels.back();
    const ResnetShape shape = ShapeOfResnet(config, config.channels.size() - 1);
    resnets_.emplace_back(weights.Sub("resnets", 0), shape);
    if (config.middle_attends) {
      const WeightScope attention = weights.Sub("attentions", 0);
      norm_ = GroupNorm(attention.Sub("group_norm"), width, config.groups, kEps);
      attention_.emplace(attention, AttentionShape{.width = width, .qkv_bias = true});
    }
    resnets_.emplace_back(weights.Sub("resnets", 1), shape);
  }

  at::Tensor operator()(const at::Tensor& x) const {
    at::Tensor hidden = resnets_[0](x, {});
    if (attention_.has_value()) {
      const at::Tensor tokens = attention_->Add(ToTokens(norm_(hidden)), {}, ToTokens(hidden));
      hidden = ToPicture(tokens, x.size(2), x.size(3));
    }
    return resnets_[1](hidden, {});
  }

 private:
  std::vector<ResnetBlock> resnets_;
  GroupNorm norm_;
  std::optional<Attention> attention_;
};

struct Level {
  std::vector<ResnetBlock> resnets;
  std::optional<Downsample> downsample;
  std::optional<Upsample> upsample;
};

class Decoder {
 public:
  Decoder(const WeightScope& weights, const VaeConfig& config)
      : conv_in_(weights.Sub("conv_in"),
                 {.in = config.latent_channels,
                  .out = config.channels.back(),
                  .size_hint = SizeHint(config, config.channels.size() - 1)}),
        middle_(weights.Sub("mid_block"), config),
        norm_out_(weights.Sub("conv_norm_out"), config.channels[0], config.groups, kEps),
        conv_out_(weights.Sub("conv_out"), {.in = config.channels[0],
                                            .out = config.picture_channels,
                                            .size_hint = config.sample_size}) {
    const size_t count = config.channels.size();
    for (size_t i = 0; i < count; ++i) {
      const size_t level = count - 1 - i;
      const WeightScope from = weights.Sub("up_blocks", i);
      Level& built = levels_.emplace_back();
      for (int64_t j = 0; j <= config.layers; ++j) {
        ResnetShape shape = ShapeOfResnet(config, level);
        if (j == 0) shape.in = config.channels[std::min(level + 1, count - 1)];
        built.resnets.emplace_back(from.Sub("resnets", j), shape);
      }
      if (level > 0) {
        built.upsample.emplace(from.Sub("upsamplers", 0), config.channels[level],
                               SizeHint(config, level - 1));
      }
    }
  }

  at::Tensor operator()(const at::Tensor& latents) const {
    at::Tensor hidden = middle_(conv_in_(latents));
    for (const Level& level : levels_) {
      for (const ResnetBlock& resnet : level.resnets) hidden = resnet(hidden, {});
      if (level.upsample.has_value()) {
        hidden = (*level.upsample)(hidden, 2 * hidden.size(2), 2 * hidden.size(3));
      }
    }
    return conv_out_(norm_out_.Silu(hidden));
  }

 private:
  Conv2d conv_in_;
  Middle middle_;
  std::vector<Level> levels_;
  GroupNorm norm_out_;
  Conv2d conv_out_;
};

class Encoder {
 public:
  Encoder(const WeightScope& weights, const VaeConfig& config)
      : conv_in_(weights.Sub("conv_in"), {.in = config.picture_channels,
                                          .out = config.channels[0],
                                          .size_hint = config.sample_size}),
        middle_(weights.Sub("mid_block"), config),
        norm_out_(weights.Sub("conv_norm_out"), config.channels.back(), config.groups, kEps),
        conv_out_(weights.Sub("conv_out"),
                  {.in = config.channels.back(),
                   .out = 2 * config.latent_channels,
                   .size_hint = SizeHint(config, config.channels.size() - 1)}) {
    for (size_t level = 0; level < config.channels.size(); ++level) {
      const WeightScope from = weights.Sub("down_blocks", level);
      Level& built = levels_.emplace_back();
      for (int64_t j = 0; j < config.layers; ++j) {
        ResnetShape shape = ShapeOfResnet(config, level);
        if (j == 0 && level > 0) shape.in = config.channels[level - 1];
        built.resnets.emplace_back(from.Sub("resnets", j), shape);
      }
      if (level + 1 < config.channels.size()) {
        built.downsample.emplace(from.Sub("downsamplers", 0), config.channels[level], 0,
                                 SizeHint(config, level));
      }
    }
  }

  at::Tensor operator()(const at::Tensor& pictures) const {
    at::Tensor hidden = conv_in_(pictures);
    for (const Level& level : levels_) {
      for (const ResnetBlock& resnet : level.resnets) hidden = resnet(hidden, {});
      if (level.downsample.has_value()) hidden = (*level.downsample)(hidden);
    }
    return conv_out_(norm_out_.Silu(middle_(hidden)));
  }

 private:
  Conv2d conv_in_;
  std::vector<Level> levels_;
  Middle middle_;
  GroupNorm norm_out_;
  Conv2d conv_out_;
};

}  // namespace

class Vae::Network {
 public:
  Network(const WeightScope& weights, const VaeConfig& config, ModelOptions options)
      : options_(options),
        dtype_(onednn::ComputeType(weights.checkpoint().options().dtype,
                                   weights.checkpoint().options().device)),
        decoder_(weights.Sub("decoder"), config) {
    traits_ = {.latent_channels = config.latent_channels,
               .picture_channels = config.picture_channels,
               .factor = int64_t{1} << (config.channels.size() - 1),
               .scaling_factor = config.scaling_factor,
               .shift_factor = config.shift_factor};
    const ConvShape pointwise = {
        .in = config.latent_channels, .out = config.latent_channels, .kernel = 1, .padding = 0};
    if (config.post_quant_conv) {
      post_quant_conv_.emplace(weights.Sub("post_quant_conv"), pointwise);
    }
    if (!weights.Has("encoder.conv_in.weight")) return;
    encoder_.emplace(weights.Sub("encoder"), config);
    if (config.quant_conv) {
      ConvShape twice = pointwise;
      twice.in = twice.out = 2 * config.latent_channels;
      quant_conv_.emplace(weights.Sub("quant_conv"), twice);
    }
  }

  at::Tensor Decode(const at::Tensor& latents) const {
    const at::Tensor unscaled = latents / traits_.scaling_factor + traits_.shift_factor;
    at::Tensor hidden = unscaled.to(dtype_).contiguous(at::MemoryFormat::ChannelsLast);
    if (post_quant_conv_.has_value()) hidden = (*post_quant_conv_)(hidden);
    return decoder_(hidden).to(at::kFloat).contiguous();
  }

  at::Tensor Encode(const at::Tensor& pictures) const {
    at::Tensor hidden = (*encoder_)(pictures.to(dtype_).contiguous(at::MemoryFormat::ChannelsLast));
    if (quant_conv_.has_value()) hidden = (*quant_conv_)(hidden);
    return hidden.to(at::kFloat).contiguous();
  }

  bool can_encode() const { return encoder_.has_value(); }
  bool one_by_one(const at::Tensor& x) const { return options_.deterministic && !x.is_cpu(); }
  const VaeTraits& traits() const { return traits_; }

 private:
  ModelOptions options_;
  at::ScalarType dtype_;  // of activations
  VaeTraits traits_;
  std::optional<Conv2d> post_quant_conv_;
  Decoder decoder_;
  std::optional<Encoder> encoder_;
  std::optional<Conv2d> quant_conv_;
};

absl::StatusOr<std::unique_ptr<Vae>> Vae::Load(Checkpoint& checkpoint, ModelOptions options) {
  const absl::StatusOr<VaeConfig> config = VaeConfig::FromJson(checkpoint.config());
  if (!config.ok()) return config.status();
  // Folders written before diffusers 0.17 have other names for the one attention.
  const absl::Status renamed = checkpoint.Rename([](absl::string_view name) {
    return absl::StrReplaceAll(name, {{"attentions.0.query.", "attentions.0.to_q."},
                                      {"attentions.0.key.", "attentions.0.to_k."},
                                      {"attentions.0.value.", "attentions.0.to_v."},
                                      {"attentions.0.proj_attn.", "attentions.0.to_out.0."}});
  });
  if (!renamed.ok()) return renamed;
  at::NoGradGuard no_grad;
  const WeightScope weights(checkpoint);
  auto network = std::make_unique<Network>(weights, *config, options);
  if (!weights.status().ok()) return weights.status();
  return std::unique_ptr<Vae>(new Vae(std::move(network)));
}

Vae::Vae(std::unique_ptr<const Network> network) : network_(std::move(network)) {}
Vae::~Vae() = default;

at::Tensor Vae::Decode(const at::Tensor& latents) const {
  at::NoGradGuard no_grad;
  if (!network_->one_by_one(latents)) return network_->Decode(latents);
  std::vector<at::Tensor> rows;
  for (const at::Tensor& row : latents.split(1)) rows.push_back(network_->Decode(row));
  return at::cat(rows);
}

at::Tensor Vae::Encode(const at::Tensor& pictures) const {
  at::NoGradGuard no_grad;
  if (!network_->one_by_one(pictures)) return network_->Encode(pictures);
  std::vector<at::Tensor> rows;
  for (const at::Tensor& row : pictures.split(1)) rows.push_back(network_->Encode(row));
  return at::cat(rows);
}

bool Vae::can_encode() const { return network_->can_encode(); }
const VaeTraits& Vae::traits() const { return network_->traits(); }

at::Tensor ToRgb8(const at::Tensor& pictures) {
  at::NoGradGuard no_grad;
  const at::Tensor unit = (pictures.cpu() / 2 + 0.5).clamp(0, 1);
  return (unit.permute({0, 2, 3, 1}).contiguous() * 255).round().to(at::kByte);
}

}  // namespace hanmo
