#include "workers/nn/attention.h"

#include <vector>

namespace hanmo {
namespace {

// Several linear layers over the same input as one, by stacking their outputs.
Linear Stack(const WeightScope& weights, const std::vector<std::string>& names, int64_t in,
             const AttentionShape& shape) {
  std::vector<at::Tensor> matrices;
  std::vector<at::Tensor> biases;
  for (const std::string& name : names) {
    const WeightScope part = weights.Sub(name);
    const bool as_conv = part.Has("weight") && part.Shape("weight").size() == 4;
    matrices.push_back(as_conv ? part.Take("weight", {shape.width, in, 1, 1}).flatten(1)
                               : part.Take("weight", {shape.width, in}));
    if (shape.qkv_bias) biases.push_back(part.Take("bias", {shape.width}));
  }
  if (!weights.status().ok()) return Linear();
  return Linear(at::cat(matrices), biases.empty() ? at::Tensor() : at::cat(biases));
}

at::Tensor SplitHeads(const at::Tensor& x, int64_t heads) {
  return x.unflatten(-1, {heads, x.size(-1) / heads}).transpose(1, 2);
}

}  // namespace

at::Tensor AttendHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       int64_t heads, bool causal) {
  const at::Tensor out = at::scaled_dot_product_attention(
      SplitHeads(q, heads), SplitHeads(k, heads), SplitHeads(v, heads), {}, 0.0, causal);
  return out.transpose(1, 2).flatten(2);
}

Attention::Attention(const WeightScope& weights, const AttentionShape& shape,
                     const AttentionNames& names)
    : shape_(shape) {
  if (shape.context_width == 0) {
    fused_ = Stack(weights, {names.q, names.k, names.v}, shape.width, shape);
  } else {
    q_ = Linear(weights.Sub(names.q), shape.width, shape.width, shape.qkv_bias);
    fused_ = Stack(weights, {names.k, names.v}, shape.context_width, shape);
  }
  out_ = Linear(weights.Sub(names.out), shape.width, shape.width);
}

at::Tensor Attention::Add(const at::Tensor& x, const at::Tensor& context,
                          const at::Tensor& residual) const {
  at::Tensor attended;
  if (shape_.context_width == 0) {
    const std::vector<at::Tensor> qkv = fused_(x).chunk(3, -1);
    attended = AttendHeads(qkv[0], qkv[1], qkv[2], shape_.heads, shape_.causal);
  } else {
    const std::vector<at::Tensor> kv = fused_(context).chunk(2, -1);
    attended = AttendHeads(q_(x), kv[0], kv[1], shape_.heads);
  }
  return out_.Add(attended, residual);
}

}  // namespace hanmo
