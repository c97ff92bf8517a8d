// The text encoder of Stable Diffusion 1.x and Taiyi Chinese-EN (transformers' CLIPTextModel).
#ifndef HANMO_WORKERS_MODELS_CLIP_TEXT_H_
#define HANMO_WORKERS_MODELS_CLIP_TEXT_H_

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/models/text_encoder.h"
#include "workers/nn/attention.h"
#include "workers/nn/linear.h"
#include "workers/nn/model_options.h"
#include "workers/nn/norm.h"

namespace hanmo {

class ClipTextEncoder : public TextEncoder {
 public:
  // Takes names with or without the prefix "text_model."; the projection is ignored.
  static absl::StatusOr<std::unique_ptr<ClipTextEncoder>> Load(Checkpoint& checkpoint,
                                                               ModelOptions options);

  // Causal: a token sees the ones before it.
  at::Tensor Encode(const at::Tensor& ids) const override;

  const TextEncoderTraits& traits() const override { return traits_; }

 private:
  struct Config;
  struct Layer {
    LayerNorm attention_norm;
    Attention attention;
    LayerNorm mlp_norm;
    Linear widen, narrow;
  };

  ClipTextEncoder(const WeightScope& weights, const Config& config, ModelOptions options);
  at::Tensor Run(const at::Tensor& ids) const;

  ModelOptions options_;
  at::ScalarType dtype_;  // of activations
  TextEncoderTraits traits_;
  Activation activation_;
  at::Tensor words_;  // embeddings [vocabulary, width]
  at::Tensor positions_;
  std::vector<Layer> layers_;
  LayerNorm final_norm_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_CLIP_TEXT_H_
