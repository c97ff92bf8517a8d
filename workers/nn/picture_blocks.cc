#include "workers/nn/picture_blocks.h"

#include "workers/nn/parts.h"

namespace hanmo {
namespace {

// Rows of a picture of `row` elements each that are moved in one part.
int64_t RowsOfPart(int64_t row) {
  return static_cast<int64_t>(PartElements() / static_cast<double>(row));
}

at::Tensor Enlarge(const at::Tensor& x, int64_t height, int64_t width) {
  const bool doubled = height == 2 * x.size(2) && width == 2 * x.size(3);
  if (!doubled || !x.is_cpu()) return at::upsample_nearest2d(x, {height, width});
  at::Tensor out = at::empty({x.size(0), x.size(1), height, width},
                             x.options().memory_format(at::MemoryFormat::ChannelsLast));
  const int64_t rows = RowsOfPart(4 * x.size(1) * x.size(3));
  for (int64_t i = 0; i < x.size(0); ++i) {
    ForEachPart(x.size(2), rows, 1, [&](int64_t first, int64_t count) {
      at::Tensor to = out.narrow(0, i, 1).narrow(2, 2 * first, 2 * count);
      at::upsample_nearest2d_out(to, x.narrow(0, i, 1).narrow(2, first, count), {2 * count, width});
    });
  }
  return out;
}

}  // namespace

at::Tensor ConcatChannels(const at::Tensor& a, const at::Tensor& b) {
  if (!a.is_cpu()) return at::cat({a, b}, 1);
  const int64_t first_channels = a.size(1), channels = first_channels + b.size(1);
  const at::Tensor out = at::empty({a.size(0), channels, a.size(2), a.size(3)},
                                   a.options().memory_format(at::MemoryFormat::ChannelsLast));
  const int64_t rows = RowsOfPart(channels * a.size(3));
  for (int64_t i = 0; i < a.size(0); ++i) {
    ForEachPart(a.size(2), rows, 1, [&](int64_t first, int64_t count) {
      const at::Tensor to = out.narrow(0, i, 1).narrow(2, first, count);
      to.narrow(1, 0, first_channels).copy_(a.narrow(0, i, 1).narrow(2, first, count));
      to.narrow(1, first_channels, b.size(1)).copy_(b.narrow(0, i, 1).narrow(2, first, count));
    });
  }
  return out;
}

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
  return conv_(Enlarge(x, height, width));
}

}  // namespace hanmo
