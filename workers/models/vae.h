// The autoencoder between latents and pictures (diffusers' AutoencoderKL).
#ifndef HANMO_WORKERS_MODELS_VAE_H_
#define HANMO_WORKERS_MODELS_VAE_H_

#include <ATen/ATen.h>

#include <memory>

#include "absl/status/statusor.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/model_options.h"

namespace hanmo {

struct VaeTraits {
  int64_t latent_channels = 4;
  int64_t picture_channels = 3;
  int64_t factor = 8;  // a picture is this much wider and higher than its latent
  double scaling_factor = 0.18215;
  double shift_factor = 0;
};

// Immutable after Load; Decode and Encode are thread-safe.
class Vae {
 public:
  // From the component folder "vae", as published, with old or new names of the attention weights.
  // INVALID_ARGUMENT names the config key or the tensor that does not fit.
  static absl::StatusOr<std::unique_ptr<Vae>> Load(Checkpoint& checkpoint, ModelOptions options);
  ~Vae();

  // latents [n, latent_channels, h, w] float32 as the sampler leaves them: they are divided by
  // scaling_factor, and shift_factor is added, here -> pictures [n, picture_channels, factor * h,
  // factor * w] float32, dense, around [-1, 1].
  at::Tensor Decode(const at::Tensor& latents) const;

  // pictures [n, picture_channels, H, W] float32 in [-1, 1] -> [n, 2 * latent_channels, H / factor,
  // W / factor] float32: mean and log variance of the latents, before scaling.
  // Only where can_encode(): some published folders hold a decoder alone.
  at::Tensor Encode(const at::Tensor& pictures) const;
  bool can_encode() const;

  const VaeTraits& traits() const;

 private:
  class Network;
  explicit Vae(std::unique_ptr<const Network> network);

  std::unique_ptr<const Network> network_;
};

// pictures [n, 3, H, W] float32 around [-1, 1] -> [n, H, W, 3] uint8 on the CPU: (x / 2 + 0.5)
// clamped to [0, 1], times 255, rounded half to even, as diffusers and numpy do.
at::Tensor ToRgb8(const at::Tensor& pictures);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_VAE_H_
