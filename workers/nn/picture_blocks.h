// The blocks that denoising UNets and autoencoders are built of. Pictures are [n, channels, h, w]
// in channels_last, so that their pixels are tokens [n, h * w, channels] without a copy.
#ifndef HANMO_WORKERS_NN_PICTURE_BLOCKS_H_
#define HANMO_WORKERS_NN_PICTURE_BLOCKS_H_

#include <ATen/ATen.h>

#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/conv2d.h"
#include "workers/nn/linear.h"
#include "workers/nn/norm.h"

namespace hanmo {

// Views, for channels_last pictures.
at::Tensor ToTokens(const at::Tensor& picture);
at::Tensor ToPicture(const at::Tensor& tokens, int64_t height, int64_t width);

// Two pictures' channels one after the other, both channels_last.
at::Tensor ConcatChannels(const at::Tensor& a, const at::Tensor& b);

struct ResnetShape {
  int64_t in = 0;
  int64_t out = 0;
  int64_t time_width = 0;  // 0: not conditioned on time
  int64_t groups = 32;
  double eps = 1e-5;
  double output_scale = 1.0;  // the sum of both branches is divided by it
  int64_t size_hint = 64;
};

// Two convolutions with group norms and SiLU, beside a shortcut. Immutable; thread-safe.
class ResnetBlock {
 public:
  ResnetBlock(const WeightScope& weights, const ResnetShape& shape);

  // x [n, in, h, w], time [n, time_width] already through SiLU (undefined without conditioning)
  // -> [n, out, h, w].
  at::Tensor operator()(const at::Tensor& x, const at::Tensor& time) const;

 private:
  double output_scale_;
  GroupNorm norm1_;
  Conv2d conv1_;
  Linear time_;
  GroupNorm norm2_;
  Conv2d conv2_;
  Linear shortcut_;  // undefined when in == out
};

// Halves height and width with a strided convolution. Immutable; thread-safe.
class Downsample {
 public:
  // padding 1, or 0: then one row and one column of zeros are added below and to the right.
  Downsample(const WeightScope& weights, int64_t channels, int64_t padding, int64_t size_hint);

  at::Tensor operator()(const at::Tensor& x) const;

 private:
  bool pad_;
  Conv2d conv_;
};

// Enlarges by repeating pixels, then convolves. Immutable; thread-safe.
class Upsample {
 public:
  Upsample(const WeightScope& weights, int64_t channels, int64_t size_hint);

  // x [n, channels, h, w] -> [n, channels, height, width], usually 2h x 2w.
  at::Tensor operator()(const at::Tensor& x, int64_t height, int64_t width) const;

 private:
  Conv2d conv_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_PICTURE_BLOCKS_H_
