#include "workers/nn/spatial_transformer.h"

#include "workers/nn/parts.h"
#include "workers/nn/picture_blocks.h"

namespace hanmo {

SpatialTransformer::SpatialTransformer(const WeightScope& weights,
                                       const SpatialTransformerShape& shape)
    : norm_(weights.Sub("norm"), shape.channels, shape.groups, 1e-6),
      project_in_(weights.Sub("proj_in"), shape.channels, shape.channels) {
  for (int64_t i = 0; i < shape.layers; ++i) {
    layers_.push_back(ReadLayer(weights.Sub("transformer_blocks", i), shape));
  }
  project_out_ = Linear(weights.Sub("proj_out"), shape.channels, shape.channels);
}

SpatialTransformer::Layer SpatialTransformer::ReadLayer(const WeightScope& weights,
                                                        const SpatialTransformerShape& shape) {
  const int64_t width = shape.channels;
  Layer layer;
  layer.norm1 = LayerNorm(weights.Sub("norm1"), width, 1e-5);
  layer.self = Attention(weights.Sub("attn1"), {.width = width, .heads = shape.heads});
  layer.norm2 = LayerNorm(weights.Sub("norm2"), width, 1e-5);
  layer.cross =
      Attention(weights.Sub("attn2"),
                {.width = width, .heads = shape.heads, .context_width = shape.text_width});
  layer.norm3 = LayerNorm(weights.Sub("norm3"), width, 1e-5);
  const WeightScope geglu = weights.Sub("ff.net.0.proj");
  const std::vector<at::Tensor> matrix = geglu.Take("weight", {8 * width, width}).chunk(2);
  const std::vector<at::Tensor> bias = geglu.Take("bias", {8 * width}).chunk(2);
  if (weights.status().ok()) {
    layer.value = Linear(matrix[0], bias[0]);
    layer.gate = Linear(matrix[1], bias[1]);
  }
  layer.out = Linear(weights.Sub("ff.net.2"), 4 * width, width);
  return layer;
}

// Some rows at a time through all of it, so that what is four times as wide stays in the cache.
at::Tensor SpatialTransformer::FeedForward(const Layer& layer, const at::Tensor& x) {
  const at::Tensor rows = x.flatten(0, 1);
  const Linear gate = layer.gate.Widened();
  const Linear value = layer.value.Widened();
  const Linear out = layer.out.Widened();
  const auto width = static_cast<double>(x.size(2));
  // As many as the widest linear layer has in one part.
  RowCost cost = {.operations = 8 * width * width, .most = 512};
  if (!x.is_cpu()) cost.least = cost.most = rows.size(0);
  return MapRows(rows.size(0), cost,
                 [&](int64_t first, int64_t count) {
                   const at::Tensor some = rows.narrow(0, first, count);
                   const at::Tensor normed = layer.norm3(some);
                   const at::Tensor gates = gate(normed, Activation::kGelu);
                   return out.Add(value.Multiply(normed, gates), some);
                 })
      .view_as(x);
}

at::Tensor SpatialTransformer::operator()(const at::Tensor& x, const at::Tensor& text) const {
  const at::Tensor residual = ToTokens(x);
  at::Tensor hidden = project_in_(ToTokens(norm_(x)));
  for (const Layer& layer : layers_) {
    hidden = layer.self.Add(layer.norm1(hidden), {}, hidden);
    hidden = layer.cross.Add(layer.norm2(hidden), text, hidden);
    hidden = FeedForward(layer, hidden);
  }
  return ToPicture(project_out_.Add(hidden, residual), x.size(2), x.size(3));
}

}  // namespace hanmo
