#include "workers/nn/conv2d.h"

namespace hanmo {

Conv2d::Conv2d(const WeightScope& weights, const ConvShape& shape) : shape_(shape) {
  const at::Tensor weight =
      weights.Take("weight", {shape.out, shape.in, shape.kernel, shape.kernel});
  bias_ = weights.Take("bias", {shape.out});
  if (!weights.status().ok()) return;
  if (!onednn::Supports(weight.scalar_type(), weight.device())) {
    weight_ = weight.contiguous(at::MemoryFormat::ChannelsLast);
    return;
  }
  const at::ScalarType compute = onednn::ComputeType(weight.scalar_type(), weight.device());
  packed_ = onednn::PackedWeight::ForConv(weight, {shape.padding, shape.stride},
                                          {2, shape.in, shape.size_hint, shape.size_hint}, compute);
  bias_ = bias_.to(compute);
}

at::Tensor Conv2d::operator()(const at::Tensor& x) const {
  if (packed_.defined()) {
    return onednn::Conv(x.contiguous(at::MemoryFormat::ChannelsLast), packed_.Get(), bias_,
                        {shape_.padding, shape_.stride});
  }
  return at::conv2d(x, weight_, bias_, shape_.stride, shape_.padding);
}

at::Tensor Conv2d::Add(const at::Tensor& x, const at::Tensor& other) const {
  if (packed_.defined()) {
    return onednn::ConvAdd(x.contiguous(at::MemoryFormat::ChannelsLast), packed_.Get(), bias_,
                           other.contiguous(at::MemoryFormat::ChannelsLast),
                           {shape_.padding, shape_.stride});
  }
  return at::conv2d(x, weight_, bias_, shape_.stride, shape_.padding).add_(other);
}

}  // namespace hanmo
