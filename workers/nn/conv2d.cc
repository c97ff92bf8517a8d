#include "workers/nn/conv2d.h"

#include <algorithm>

#include "workers/nn/parts.h"

namespace hanmo {
namespace {

// Channels of the output that are computed together where the weight is large: reading it again for
// every band of a small picture would cost more than reading the picture again.
constexpr int64_t kGroupChannels = 32;
constexpr int64_t kLargeWeight = 2 << 20;  // elements

// Of a band of rows. For still smaller ones oneDNN shares a sum among threads, in another order.
constexpr int64_t kLeastPixels = 64;

int64_t OutputSize(int64_t size, const ConvShape& shape) {
  return (size + 2 * shape.padding - shape.kernel) / shape.stride + 1;
}

}  // namespace

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
  bias_ = bias_.to(compute);
  const bool cut = weight.numel() > kLargeWeight && shape.out % kGroupChannels == 0;
  const int64_t channels = cut ? kGroupChannels : shape.out;
  for (int64_t first = 0; first < shape.out; first += channels) {
    groups_.push_back({first, channels,
                       onednn::PackedWeight::ForConv(
                           weight.narrow(0, first, channels), {shape.padding, shape.stride},
                           {2, shape.in, shape.size_hint, shape.size_hint}, compute),
                       bias_.narrow(0, first, channels)});
  }
}

at::Tensor Conv2d::operator()(const at::Tensor& x) const {
  if (!groups_.empty()) return Convolve(x, {});
  return at::conv2d(x, weight_, bias_, shape_.stride, shape_.padding);
}

at::Tensor Conv2d::Add(const at::Tensor& x, const at::Tensor& other) const {
  if (!groups_.empty()) return Convolve(x, other);
  return at::conv2d(x, weight_, bias_, shape_.stride, shape_.padding).add_(other);
}

at::Tensor Conv2d::Convolve(const at::Tensor& x, const at::Tensor& other) const {
  const at::Tensor from = x.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor out = at::empty(
      {x.size(0), shape_.out, OutputSize(x.size(2), shape_), OutputSize(x.size(3), shape_)},
      x.options().memory_format(at::MemoryFormat::ChannelsLast));
  for (const Group& group : groups_) {
    Group widened = group;
    widened.weight = group.weight.Widened();
    ForEachArea(out, [&](const Area& area) { ConvolveArea(widened, area, from, other, out); });
  }
  return out;
}

void Conv2d::ConvolveArea(const Group& group, const Area& area, const at::Tensor& x,
                          const at::Tensor& other, const at::Tensor& out) const {
  const onednn::ConvGeometry geometry = {
      .padding = shape_.padding, .stride = shape_.stride, .rows_padded = area.rows == out.size(2)};
  const at::Tensor input = InputOf(area, x, out.size(2));
  const at::Tensor to = area.Of(out, group);
  if (!other.defined()) {
    to.copy_(onednn::Conv(input, group.weight.opaque(), group.bias, geometry));
    return;
  }
  // Some channels of a picture are not dense.
  const bool dense = groups_.size() == 1;
  const at::Tensor sum = dense ? to.copy_(area.Of(other, group))
                               : area.Of(other, group).clone(at::MemoryFormat::ChannelsLast);
  onednn::ConvAdd(input, group.weight.opaque(), group.bias, sum, geometry);
  if (!dense) to.copy_(sum);
}

at::Tensor Conv2d::InputOf(const Area& area, const at::Tensor& x, int64_t out_rows) const {
  const at::Tensor pictures = x.narrow(0, area.picture, area.pictures);
  if (area.rows == out_rows) return pictures;
  const int64_t first = area.row * shape_.stride - shape_.padding;
  const int64_t count = (area.rows - 1) * shape_.stride + shape_.kernel;
  const int64_t from = std::max<int64_t>(first, 0);
  const int64_t to = std::min(first + count, x.size(2));
  const at::Tensor rows = pictures.narrow(2, from, to - from);
  if (to - from == count) return rows;
  return at::constant_pad_nd(rows, {0, 0, from - first, first + count - to})
      .contiguous(at::MemoryFormat::ChannelsLast);
}

at::Tensor Conv2d::Area::Of(const at::Tensor& out, const Group& group) const {
  return out.narrow(0, picture, pictures)
      .narrow(1, group.first, group.channels)
      .narrow(2, row, rows);
}

template <typename Run>
void Conv2d::ForEachArea(const at::Tensor& out, const Run& run) const {
  const int64_t count = out.size(0), height = out.size(2);
  const double row = 2.0 * static_cast<double>(groups_[0].channels * out.size(3) * shape_.in *
                                               shape_.kernel * shape_.kernel);
  const int64_t least = (kLeastPixels + out.size(3) - 1) / out.size(3);
  const int64_t rows = std::max(least, static_cast<int64_t>(PartOperations() / row));
  if (rows >= height) {
    ForEachPart(count, rows / height, 1,
                [&](int64_t first, int64_t pictures) { run({first, pictures, 0, height}); });
    return;
  }
  for (int64_t picture = 0; picture < count; ++picture) {
    ForEachPart(height, rows, 1,
                [&](int64_t first, int64_t some) { run({picture, 1, first, some}); });
  }
}

}  // namespace hanmo
