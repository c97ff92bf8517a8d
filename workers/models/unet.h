// The denoising model of Stable Diffusion 1.x and Taiyi-Stable-Diffusion (diffusers'
// UNet2DConditionModel): a UNet of residual and cross-attention blocks.
#ifndef HANMO_WORKERS_MODELS_UNET_H_
#define HANMO_WORKERS_MODELS_UNET_H_

#include <ATen/ATen.h>

#include <memory>

#include "absl/status/statusor.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/model_options.h"

namespace hanmo {

// What a caller must know of a loaded UNet.
struct UnetTraits {
  int64_t in_channels = 4;
  int64_t out_channels = 4;
  int64_t sample_size = 64;  // the latent height and width it was trained at
  int64_t text_width = 768;
};

// Immutable after Load; Forward is thread-safe.
class Unet {
 public:
  // From the component folder "unet", as published. INVALID_ARGUMENT names the config key or the
  // tensor that does not fit. Weights are in memory once, in the checkpoint's serving type.
  static absl::StatusOr<std::unique_ptr<Unet>> Load(Checkpoint& checkpoint, ModelOptions options);
  ~Unet();

  // latents [n, in_channels, h, w] float32, any h and w ≥ 1; timesteps [n] float32, one for each
  // row; text [n, length, text_width] of any type; all on the model's device -> what the model
  // predicts (noise, velocity or sample), [n, out_channels, h, w] float32, dense.
  at::Tensor Forward(const at::Tensor& latents, const at::Tensor& timesteps,
                     const at::Tensor& text) const;

  const UnetTraits& traits() const;

 private:
  class Network;
  explicit Unet(std::unique_ptr<const Network> network);

  std::unique_ptr<const Network> network_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_UNET_H_
