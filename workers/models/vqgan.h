// A picture tokenizer (diffusers' VQModel, the VQGAN of taming transformers): pictures to codes of
// a codebook and back.
#ifndef HANMO_WORKERS_MODELS_VQGAN_H_
#define HANMO_WORKERS_MODELS_VQGAN_H_

#include <ATen/ATen.h>

#include <memory>

#include "absl/status/statusor.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/model_options.h"

namespace hanmo {

struct VqganTraits {
  int64_t codes = 0;  // in the codebook
  int64_t picture_channels = 3;
  int64_t factor = 8;  // a code stands for factor x factor pixels
};

// Immutable after Load; Decode and Encode are thread-safe. A picture's result does not depend on
// the others of the batch.
class Vqgan {
 public:
  // From a component folder as published. INVALID_ARGUMENT names the config key or the tensor that
  // does not fit.
  static absl::StatusOr<std::unique_ptr<Vqgan>> Load(Checkpoint& checkpoint, ModelOptions options);
  ~Vqgan();

  // codes [n, h, w] int64 in [0, traits().codes) -> pictures [n, picture_channels, factor * h,
  // factor * w] float32, dense, around [-1, 1].
  at::Tensor Decode(const at::Tensor& codes) const;

  // pictures [n, picture_channels, H, W] float32 in [-1, 1] -> the nearest codes [n, H / factor,
  // W / factor] int64, of equally near ones the first.
  at::Tensor Encode(const at::Tensor& pictures) const;

  const VqganTraits& traits() const;

 private:
  class Network;
  explicit Vqgan(std::unique_ptr<const Network> network);

  std::unique_ptr<const Network> network_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_VQGAN_H_
