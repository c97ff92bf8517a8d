// Transformer blocks over the pixels of a picture, attending to a prompt.
#ifndef HANMO_WORKERS_NN_SPATIAL_TRANSFORMER_H_
#define HANMO_WORKERS_NN_SPATIAL_TRANSFORMER_H_

#include <ATen/ATen.h>

#include <vector>

#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/attention.h"
#include "workers/nn/linear.h"
#include "workers/nn/norm.h"

namespace hanmo {

struct SpatialTransformerShape {
  int64_t channels = 0;  // a multiple of heads
  int64_t heads = 8;
  int64_t text_width = 768;
  int64_t layers = 1;
  int64_t groups = 32;
};

// Immutable after construction; calls are thread-safe.
class SpatialTransformer {
 public:
  SpatialTransformer(const WeightScope& weights, const SpatialTransformerShape& shape);

  // x [n, channels, h, w], text [n, length, text_width] -> [n, channels, h, w].
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& text) const;

 private:
  struct Layer {
    LayerNorm norm1;
    Attention self;
    LayerNorm norm2;
    Attention cross;
    LayerNorm norm3;
    Linear value, gate;  // GEGLU: value(x) * gelu(gate(x))
    Linear out;
  };
  static Layer ReadLayer(const WeightScope& weights, const SpatialTransformerShape& shape);
  // x + out(value(normed x) * gelu(gate(normed x))), x [n, l, channels].
  static at::Tensor FeedForward(const Layer& layer, const at::Tensor& x);

  GroupNorm norm_;
  Linear project_in_;
  std::vector<Layer> layers_;
  Linear project_out_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_SPATIAL_TRANSFORMER_H_
