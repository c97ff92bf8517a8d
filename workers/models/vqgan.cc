#include "workers/models/vqgan.h"

#include <ATen/core/grad_mode.h>

#include <utility>
#include <vector>

#include "workers/models/autoencoder.h"
#include "workers/models/vqgan_config.h"
#include "workers/nn/onednn.h"

namespace hanmo {
class Vqgan::Network {
 public:
  Network(const WeightScope& weights, const VqganConfig& config, ModelOptions options)
      : options_(options),
        dtype_(onednn::ComputeType(weights.checkpoint().options().dtype,
                                   weights.checkpoint().options().device)),
        encoder_(weights.Sub("encoder"), config.shape, config.shape.latent_channels),
        quant_conv_(weights.Sub("quant_conv"), {.in = config.shape.latent_channels,
                                                .out = config.code_width,
                                                .kernel = 1,
                                                .padding = 0}),
        post_quant_conv_(weights.Sub("post_quant_conv"), {.in = config.code_width,
                                                          .out = config.shape.latent_channels,
                                                          .kernel = 1,
                                                          .padding = 0}),
        decoder_(weights.Sub("decoder"), config.shape),
        codebook_(weights.Take("quantize.embedding.weight", {config.codes, config.code_width})) {
    traits_ = {.codes = config.codes,
               .picture_channels = config.shape.picture_channels,
               .factor = config.shape.factor()};
    if (!weights.status().ok()) return;
    codebook_ = codebook_.to(at::kFloat);
    norms_ = codebook_.square().sum(1);
  }

  at::Tensor Decode(const at::Tensor& codes) const {
    // [n, h, w, code_width] is channels_last already.
    const at::Tensor latents = codebook_.index_select(0, codes.to(codebook_.device()).flatten())
                                   .view({codes.size(0), codes.size(1), codes.size(2), -1})
                                   .permute({0, 3, 1, 2})
                                   .to(dtype_);
    return decoder_(post_quant_conv_(latents)).to(at::kFloat).contiguous();
  }

  at::Tensor Encode(const at::Tensor& pictures) const {
    const at::Tensor latents =
        quant_conv_(encoder_(pictures.to(dtype_).contiguous(at::MemoryFormat::ChannelsLast)));
    return Nearest(latents.to(at::kFloat));
  }

  bool one_by_one(const at::Tensor& x) const { return options_.deterministic && !x.is_cpu(); }
  const VqganTraits& traits() const { return traits_; }

 private:
  // One picture after the other: a product's rounding may depend on its number of rows.
  at::Tensor Nearest(const at::Tensor& latents) const {
    std::vector<at::Tensor> codes;
    for (const at::Tensor& picture : latents.split(1)) {
      const at::Tensor tokens = picture[0].permute({1, 2, 0}).flatten(0, 1);
      // |z - e|² less |z|², which is the same for all codes.
      const at::Tensor distances = at::addmm(norms_, tokens, codebook_.t(), 1, -2);
      codes.push_back(distances.argmin(1).view({1, latents.size(2), latents.size(3)}));
    }
    return at::cat(codes);
  }

  ModelOptions options_;
  at::ScalarType dtype_;  // of activations
  VqganTraits traits_;
  PictureEncoder encoder_;
  Conv2d quant_conv_;
  Conv2d post_quant_conv_;
  PictureDecoder decoder_;
  at::Tensor codebook_;  // float32 [codes, code_width]
  at::Tensor norms_;     // |e|² of each
};

absl::StatusOr<std::unique_ptr<Vqgan>> Vqgan::Load(Checkpoint& checkpoint, ModelOptions options) {
  const absl::StatusOr<VqganConfig> config = VqganConfig::FromJson(checkpoint.config());
  if (!config.ok()) return config.status();
  if (absl::Status renamed = RenameOldAttention(checkpoint); !renamed.ok()) return renamed;
  at::NoGradGuard no_grad;
  const WeightScope weights(checkpoint);
  auto network = std::make_unique<Network>(weights, *config, options);
  if (!weights.status().ok()) return weights.status();
  return std::unique_ptr<Vqgan>(new Vqgan(std::move(network)));
}

Vqgan::Vqgan(std::unique_ptr<const Network> network) : network_(std::move(network)) {}
Vqgan::~Vqgan() = default;

at::Tensor Vqgan::Decode(const at::Tensor& codes) const {
  at::NoGradGuard no_grad;
  if (!network_->one_by_one(codes)) return network_->Decode(codes);
  std::vector<at::Tensor> rows;
  for (const at::Tensor& row : codes.split(1)) rows.push_back(network_->Decode(row));
  return at::cat(rows);
}

at::Tensor Vqgan::Encode(const at::Tensor& pictures) const {
  at::NoGradGuard no_grad;
  if (!network_->one_by_one(pictures)) return network_->Encode(pictures);
  std::vector<at::Tensor> rows;
  for (const at::Tensor& row : pictures.split(1)) rows.push_back(network_->Encode(row));
  return at::cat(rows);
}

const VqganTraits& Vqgan::traits() const { return network_->traits(); }

}  // namespace hanmo
