// The picture side of CLIP models: the vision transformer of transformers' CLIPModel and
// ChineseCLIPModel with its projection.
#ifndef HANMO_WORKERS_MODELS_CLIP_VISION_H_
#define HANMO_WORKERS_MODELS_CLIP_VISION_H_

#include <ATen/ATen.h>

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/attention.h"
#include "workers/nn/linear.h"
#include "workers/nn/model_options.h"
#include "workers/nn/norm.h"

namespace hanmo {

struct ClipVisionTraits {
  int64_t size = 224;   // pictures have so many pixels in width and height
  int64_t width = 512;  // of the features
};

// Immutable after Load; Encode is thread-safe.
class ClipVision {
 public:
  // Takes "vision_model.*" and "visual_projection.weight"; the keys are those of config.json's
  // vision_config, or of config.json itself where it has none. INVALID_ARGUMENT names the key or
  // the tensor that does not fit.
  static absl::StatusOr<std::unique_ptr<ClipVision>> Load(Checkpoint& checkpoint,
                                                          ModelOptions options);

  // pictures [n, 3, size, size] float32 as ClipPreprocessor makes them, on the model's device ->
  // features [n, width] float32, not normalised.
  at::Tensor Encode(const at::Tensor& pictures) const;

  const ClipVisionTraits& traits() const { return traits_; }

 private:
  struct Config;
  struct Layer {
    LayerNorm attention_norm;
    Attention attention;
    LayerNorm mlp_norm;
    Linear widen, narrow;
  };

  ClipVision(const WeightScope& weights, const Config& config, ModelOptions options);
  at::Tensor Run(const at::Tensor& pictures) const;

  ModelOptions options_;
  at::ScalarType dtype_;  // of activations
  ClipVisionTraits traits_;
  Activation activation_;
  int64_t patch_;      // pixels in width and height
  Linear patches_;     // a convolution of patches that do not overlap is a linear layer over them
  at::Tensor class_;   // embedding of the token before the patches [width of the model]
  at::Tensor places_;  // embeddings of positions [1 + patches, width of the model]
  LayerNorm first_norm_;
  std::vector<Layer> layers_;
  LayerNorm last_norm_;
  Linear project_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_CLIP_VISION_H_
