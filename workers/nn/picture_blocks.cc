#include "workers/nn/picture_blocks.h"

namespace hanmo {

at::Tensor ToTokens(const at::Tensor& picture) {
  return picture.permute({0, 2, 3, 1}).flatten(1, 2);
}

at::Tensor ToPicture(const at::Tensor& tokens, int64_t height, int64_t width) {
  return tokens.unflatten(1, {height, width}).permute({0, 3, 1, 2});
}

ResnetBlock::ResnetBlock(const WeightScope& weights, const ResnetShape& shape)
    : output_scale_(shape.output_scale),
      norm1_(weights.Sub("norm1"), shape.in, shape.groups, shape.eps),
      conv1_(weights.Sub("conv1"),
             {.in = shape.in, .out = shape.out, .size_hint = shape.size_hint}),
      norm2_(weights.Sub("norm2"), shape.out, shape.groups, shape.eps),
      conv2_(weights.Sub("conv2"),
             {.in = shape.out, .out = shape.out, .size_hint = shape.size_hint}) {
  if (shape.time_width > 0) {
    time_ = Linear(weights.Sub("time_emb_proj"), shape.time_width, shape.out);
  }
  if (shape.in != shape.out) {
    shortcut_ = Linear(weights.Sub("conv_shortcut"), shape.in, shape.out);
  }
}

at::Tensor ResnetBlock::operator()(const at::Tensor& x, const at::Tensor& time) const {
  at::Tensor hidden = conv1_(norm1_.Silu(x));
  hidden = norm2_.Silu(hidden, time_.defined() ? time_(time) : at::Tensor());
  const at::Tensor shortcut =
      shortcut_.defined() ? ToPicture(shortcut_(ToTokens(x)), x.size(2), x.size(3)) : x;
  at::Tensor out = conv2_.Add(hidden, shortcut);
  return output_scale_ == 1.0 ? out : out.div_(output_scale_);
}

Downsample::Downsample(const WeightScope& weights, int64_t channels, int64_t padding,
                       int64_t size_hint)
    : pad_(padding == 0),
      conv_(weights.Sub("conv"), {.in = channels,
                                  .out = channels,
                                  .stride = 2,
                                  .padding = padding,
                                  .size_hint = size_hint}) {}

at::Tensor Downsample::operator()(const at::Tensor& x) const {
  return conv_(pad_ ? at::constant_pad_nd(x, {0, 1, 0, 1}) : x);
}

Upsample::Upsample(const WeightScope& weights, int64_t channels, int64_t size_hint)
    : conv_(weights.Sub("conv"), {.in = channels, .out = channels, .size_hint = size_hint}) {}

at::Tensor Upsample::operator()(const at::Tensor& x, int64_t height, int64_t width) const {
  return conv_(at::upsample_nearest2d(x, {height, width}));
}

}  // namespace hanmo
