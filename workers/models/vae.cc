#include "workers/models/vae.h"

#include <ATen/core/grad_mode.h>

#include <optional>
#include <utility>
#include <vector>

#include "workers/models/autoencoder.h"
#include "workers/models/vae_config.h"
#include "workers/nn/onednn.h"

namespace hanmo {
class Vae::Network {
 public:
  Network(const WeightScope& weights, const VaeConfig& config, ModelOptions options)
      : options_(options),
        dtype_(onednn::ComputeType(weights.checkpoint().options().dtype,
                                   weights.checkpoint().options().device)),
        decoder_(weights.Sub("decoder"), config.shape) {
    const int64_t latent_channels = config.shape.latent_channels;
    traits_ = {.latent_channels = latent_channels,
               .picture_channels = config.shape.picture_channels,
               .factor = config.shape.factor(),
               .scaling_factor = config.scaling_factor,
               .shift_factor = config.shift_factor};
    const ConvShape pointwise = {
        .in = latent_channels, .out = latent_channels, .kernel = 1, .padding = 0};
    if (config.post_quant_conv) {
      post_quant_conv_.emplace(weights.Sub("post_quant_conv"), pointwise);
    }
    if (!weights.Has("encoder.conv_in.weight")) return;
    encoder_.emplace(weights.Sub("encoder"), config.shape, 2 * latent_channels);
    if (config.quant_conv) {
      ConvShape twice = pointwise;
      twice.in = twice.out = 2 * latent_channels;
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
  PictureDecoder decoder_;
  std::optional<PictureEncoder> encoder_;
  std::optional<Conv2d> quant_conv_;
};

absl::StatusOr<std::unique_ptr<Vae>> Vae::Load(Checkpoint& checkpoint, ModelOptions options) {
  const absl::StatusOr<VaeConfig> config = VaeConfig::FromJson(checkpoint.config());
  if (!config.ok()) return config.status();
  const absl::Status renamed = RenameOldAttention(checkpoint);
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
