#include "workers/models/unet.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "workers/models/unet_config.h"
#include "workers/nn/conv2d.h"
#include "workers/nn/linear.h"
#include "workers/nn/norm.h"
#include "workers/nn/onednn.h"
#include "workers/nn/picture_blocks.h"
#include "workers/nn/spatial_transformer.h"
#include "workers/nn/timestep_embedding.h"

namespace hanmo {
namespace {

// The blocks of one level in one half of the UNet: residual blocks, each followed by attention
// where the level attends.
struct Stage {
  std::vector<ResnetBlock> resnets;
  std::vector<SpatialTransformer> attentions;
  std::optional<Downsample> downsample;
  std::optional<Upsample> upsample;

  at::Tensor Run(size_t layer, const at::Tensor& x, const at::Tensor& time,
                 const at::Tensor& text) const {
    at::Tensor hidden = resnets[layer](x, time);
    return attentions.empty() ? hidden : attentions[layer](hidden, text);
  }
};

int64_t SizeHint(const UnetConfig& config, size_t level) {
  return std::max<int64_t>(1, config.sample_size >> level);
}

ResnetShape ShapeOfResnets(const UnetConfig& config, size_t level) {
  return {.in = config.levels[level].channels,
          .out = config.levels[level].channels,
          .time_width = 4 * config.levels[0].channels,
          .groups = config.groups,
          .eps = config.eps,
          .size_hint = SizeHint(config, level)};
}

SpatialTransformerShape ShapeOfAttention(const UnetConfig& config, size_t level) {
  const UnetLevel& at_level = config.levels[level];
  return {.channels = at_level.channels,
          .heads = at_level.heads,
          .text_width = at_level.text_width,
          .layers = at_level.transformer_layers,
          .groups = config.groups};
}

Stage ReadDown(const WeightScope& weights, const UnetConfig& config, size_t level) {
  const UnetLevel& shape = config.levels[level];
  Stage stage;
  for (int64_t i = 0; i < shape.layers; ++i) {
    ResnetShape resnet = ShapeOfResnets(config, level);
    if (i == 0 && level > 0) resnet.in = config.levels[level - 1].channels;
    stage.resnets.emplace_back(weights.Sub("resnets", i), resnet);
    if (shape.down_attends) {
      stage.attentions.emplace_back(weights.Sub("attentions", i), ShapeOfAttention(config, level));
    }
  }
  if (level + 1 < config.levels.size()) {
    stage.downsample.emplace(weights.Sub("downsamplers", 0), shape.channels,
                             config.downsample_padding, SizeHint(config, level));
  }
  return stage;
}

Stage ReadMiddle(const WeightScope& weights, const UnetConfig& config) {
  const size_t level = config.levels.size() - 1;
  ResnetShape resnet = ShapeOfResnets(config, level);
  resnet.output_scale = config.middle_scale;
  Stage stage;
  stage.resnets.emplace_back(weights.Sub("resnets", 0), resnet);
  if (config.middle == UnetMiddle::kAttends) {
    stage.attentions.emplace_back(weights.Sub("attentions", 0), ShapeOfAttention(config, level));
    stage.resnets.emplace_back(weights.Sub("resnets", 1), resnet);
  }
  return stage;
}

Stage ReadUp(const WeightScope& weights, const UnetConfig& config, size_t level) {
  const UnetLevel& shape = config.levels[level];
  const size_t last = config.levels.size() - 1;
  Stage stage;
  // One layer more than on the way down: it takes what the level's first block was given.
  for (int64_t i = 0; i <= shape.layers; ++i) {
    const int64_t below = config.levels[std::min(level + 1, last)].channels;
    const int64_t above = config.levels[level == 0 ? 0 : level - 1].channels;
    ResnetShape resnet = ShapeOfResnets(config, level);
    resnet.in = (i == 0 ? below : shape.channels) + (i == shape.layers ? above : shape.channels);
    stage.resnets.emplace_back(weights.Sub("resnets", i), resnet);
    if (shape.up_attends) {
      stage.attentions.emplace_back(weights.Sub("attentions", i), ShapeOfAttention(config, level));
    }
  }
  if (level > 0) {
    stage.upsample.emplace(weights.Sub("upsamplers", 0), shape.channels,
                           SizeHint(config, level - 1));
  }
  return stage;
}

}  // namespace

class Unet::Network {
 public:
  Network(const WeightScope& weights, const UnetConfig& config, ModelOptions options)
      : options_(options),
        dtype_(onednn::ComputeType(weights.checkpoint().options().dtype,
                                   weights.checkpoint().options().device)),
        center_input_(config.center_input),
        time_embedding_(weights.Sub("time_embedding"), {.in = config.levels[0].channels,
                                                        .out = 4 * config.levels[0].channels,
                                                        .flip_sin_to_cos = config.flip_sin_to_cos,
                                                        .freq_shift = config.freq_shift}),
        conv_in_(weights.Sub("conv_in"), {.in = config.in_channels,
                                          .out = config.levels[0].channels,
                                          .kernel = config.conv_in_kernel,
                                          .padding = config.conv_in_kernel / 2,
                                          .size_hint = config.sample_size}),
        norm_out_(weights.Sub("conv_norm_out"), config.levels[0].channels, config.groups,
                  config.eps),
        conv_out_(weights.Sub("conv_out"), {.in = config.levels[0].channels,
                                            .out = config.out_channels,
                                            .kernel = config.conv_out_kernel,
                                            .padding = config.conv_out_kernel / 2,
                                            .size_hint = config.sample_size}) {
    traits_ = {.in_channels = config.in_channels,
               .out_channels = config.out_channels,
               .sample_size = config.sample_size,
               .text_width = config.levels[0].text_width};
    const size_t count = config.levels.size();
    for (size_t i = 0; i < count; ++i) {
      down_.push_back(ReadDown(weights.Sub("down_blocks", i), config, i));
    }
    if (config.middle != UnetMiddle::kNone) {
      middle_ = ReadMiddle(weights.Sub("mid_block"), config);
    }
    for (size_t i = 0; i < count; ++i) {
      up_.push_back(ReadUp(weights.Sub("up_blocks", i), config, count - 1 - i));
    }
  }

  at::Tensor Forward(const at::Tensor& latents, const at::Tensor& timesteps,
                     const at::Tensor& text) const {
    if (!options_.deterministic || latents.is_cpu() || latents.size(0) == 1) {
      return Run(latents, timesteps, text);
    }
    std::vector<at::Tensor> rows;
    for (int64_t i = 0; i < latents.size(0); ++i) {
      rows.push_back(Run(latents.narrow(0, i, 1), timesteps.narrow(0, i, 1), text.narrow(0, i, 1)));
    }
    return at::cat(rows);
  }

  const UnetTraits& traits() const { return traits_; }

 private:
  at::Tensor Run(const at::Tensor& latents, const at::Tensor& timesteps,
                 const at::Tensor& text_in) const {
    const at::Tensor centered = center_input_ ? 2 * latents - 1.0 : latents;
    const at::Tensor text = text_in.to(dtype_);
    // Every residual block wants the embedding through SiLU.
    const at::Tensor time = Activate(time_embedding_(timesteps, dtype_), Activation::kSilu);
    at::Tensor hidden = conv_in_(centered.to(dtype_).contiguous(at::MemoryFormat::ChannelsLast));
    std::vector<at::Tensor> skips = {hidden};
    for (const Stage& stage : down_) {
      for (size_t i = 0; i < stage.resnets.size(); ++i) {
        hidden = stage.Run(i, hidden, time, text);
        skips.push_back(hidden);
      }
      if (stage.downsample.has_value()) {
        hidden = (*stage.downsample)(hidden);
        skips.push_back(hidden);
      }
    }
    hidden = RunMiddle(hidden, time, text);
    for (const Stage& stage : up_) {
      for (size_t i = 0; i < stage.resnets.size(); ++i) {
        hidden = stage.Run(i, ConcatChannels(hidden, skips.back()), time, text);
        skips.pop_back();
      }
      if (stage.upsample.has_value()) {
        hidden = (*stage.upsample)(hidden, skips.back().size(2), skips.back().size(3));
      }
    }
    return conv_out_(norm_out_.Silu(hidden)).to(at::kFloat).contiguous();
  }

  at::Tensor RunMiddle(at::Tensor hidden, const at::Tensor& time, const at::Tensor& text) const {
    if (middle_.resnets.empty()) return hidden;
    hidden = middle_.Run(0, hidden, time, text);
    return middle_.resnets.size() == 1 ? hidden : middle_.resnets[1](hidden, time);
  }

  ModelOptions options_;
  at::ScalarType dtype_;  // of activations
  UnetTraits traits_;
  bool center_input_;
  TimestepEmbedding time_embedding_;
  Conv2d conv_in_;
  std::vector<Stage> down_;
  Stage middle_;  // empty when the model has none
  std::vector<Stage> up_;
  GroupNorm norm_out_;
  Conv2d conv_out_;
};

absl::StatusOr<std::unique_ptr<Unet>> Unet::Load(Checkpoint& checkpoint, ModelOptions options) {
  const absl::StatusOr<UnetConfig> config = UnetConfig::FromJson(checkpoint.config());
  if (!config.ok()) return config.status();
  at::NoGradGuard no_grad;
  const WeightScope weights(checkpoint);
  auto network = std::make_unique<Network>(weights, *config, options);
  if (!weights.status().ok()) return weights.status();
  return std::unique_ptr<Unet>(new Unet(std::move(network)));
}

Unet::Unet(std::unique_ptr<const Network> network) : network_(std::move(network)) {}
Unet::~Unet() = default;

at::Tensor Unet::Forward(const at::Tensor& latents, const at::Tensor& timesteps,
                         const at::Tensor& text) const {
  at::NoGradGuard no_grad;
  return network_->Forward(latents, timesteps, text);
}

const UnetTraits& Unet::traits() const { return network_->traits(); }

}  // namespace hanmo
