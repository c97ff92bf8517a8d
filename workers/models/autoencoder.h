// The two halves of diffusers' autoencoders (AutoencoderKL, VQModel): pictures to latents and back.
#ifndef HANMO_WORKERS_MODELS_AUTOENCODER_H_
#define HANMO_WORKERS_MODELS_AUTOENCODER_H_

#include <ATen/ATen.h>

#include <optional>
#include <vector>

#include "workers/checkpoint/checkpoint.h"
#include "workers/models/model_config.h"
#include "workers/nn/attention.h"
#include "workers/nn/conv2d.h"
#include "workers/nn/norm.h"
#include "workers/nn/picture_blocks.h"

namespace hanmo {

struct AutoencoderShape {
  int64_t picture_channels = 3;
  int64_t latent_channels = 4;
  int64_t layers = 1;
  int64_t groups = 32;
  int64_t sample_size = 32;  // of pictures
  bool middle_attends = true;
  std::vector<int64_t> channels;  // from the full size to the smallest
  // Whether self attention follows each residual block, by the index of the block in the folder.
  std::vector<bool> down_attends, up_attends;

  // A picture is this much wider and higher than its latent.
  int64_t factor() const { return int64_t{1} << (channels.size() - 1); }
};

// The keys that both have; what is wrong is left in `config`.
AutoencoderShape ReadAutoencoderShape(ModelConfig& config);

// Renames the attentions of folders written before diffusers 0.17.
absl::Status RenameOldAttention(Checkpoint& checkpoint);

// Self attention over all pixels with one head, added to its input.
class PixelAttention {
 public:
  PixelAttention(const WeightScope& weights, int64_t width, int64_t groups);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  GroupNorm norm_;
  Attention attention_;
};

// Residual block, attention, residual block.
class AutoencoderMiddle {
 public:
  AutoencoderMiddle(const WeightScope& weights, const AutoencoderShape& shape);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  std::vector<ResnetBlock> resnets_;
  std::optional<PixelAttention> attention_;
};

struct AutoencoderLevel {
  std::vector<ResnetBlock> resnets;
  std::vector<PixelAttention> attentions;  // one behind each residual block, or none
  std::optional<Downsample> downsample;
  std::optional<Upsample> upsample;
};

// Immutable; thread-safe. Pictures and latents are channels_last, of the checkpoint's compute type.
class PictureDecoder {
 public:
  PictureDecoder(const WeightScope& weights, const AutoencoderShape& shape);
  // [n, latent_channels, h, w] -> [n, picture_channels, factor * h, factor * w]
  at::Tensor operator()(const at::Tensor& latents) const;

 private:
  Conv2d conv_in_;
  AutoencoderMiddle middle_;
  std::vector<AutoencoderLevel> levels_;
  GroupNorm norm_out_;
  Conv2d conv_out_;
};

class PictureEncoder {
 public:
  // `out`: channels of the result.
  PictureEncoder(const WeightScope& weights, const AutoencoderShape& shape, int64_t out);
  // [n, picture_channels, H, W] -> [n, out, H / factor, W / factor]
  at::Tensor operator()(const at::Tensor& pictures) const;

 private:
  Conv2d conv_in_;
  std::vector<AutoencoderLevel> levels_;
  AutoencoderMiddle middle_;
  GroupNorm norm_out_;
  Conv2d conv_out_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_AUTOENCODER_H_
