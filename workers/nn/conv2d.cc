#include "workers/nn/conv2d.h"

#include "workers/nn/onednn.h"

namespace hanmo {

Conv2d::Conv2d(const WeightScope& weights, const ConvShape& shape) : shape_(shape) {
  const at::Tensor weight =
      weights.Take("weight", {shape.out, shape.in, shape.kernel, shape.kernel});
  bias_ = weights.Take("bias", {shape.out});
  if (!weights.status().ok()) return;
  packed_ = onednn::Supports(weight.scalar_type(), weight.device());
  weight_ = packed_ ? onednn::PackConv(weight, {shape.padding, shape.stride},
                                       {2, shape.in, shape.size_hint, shape.size_hint})
                    : weight.contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor Conv2d::operator()(const at::Tensor& x) const {
  if (packed_) {
    return onednn::Conv(x.contiguous(at::MemoryFormat::ChannelsLast), weight_, bias_,
                        {shape_.padding, shape_.stride});
  }
  return at::conv2d(x, weight_, bias_, shape_.stride, shape_.padding);
}

at::Tensor Conv2d::Add(const at::Tensor& x, const at::Tensor& other) const {
  if (packed_) {
    return onednn::ConvAdd(x.contiguous(at::MemoryFormat::ChannelsLast), weight_, bias_,
                           other.contiguous(at::MemoryFormat::ChannelsLast),
                           {shape_.padding, shape_.stride});
  }
  return at::conv2d(x, weight_, bias_, shape_.stride, shape_.padding).add_(other);
}

}  // namespace hanmo
