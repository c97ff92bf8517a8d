// Layer and group normalisation with learned scale and shift.
#ifndef HANMO_WORKERS_NN_NORM_H_
#define HANMO_WORKERS_NN_NORM_H_

#include <ATen/ATen.h>

#include "workers/checkpoint/checkpoint.h"

namespace hanmo {

// Over the last dimension, of x in onednn::ComputeType of the serving type. Immutable; calls are
// thread-safe.
class LayerNorm {
 public:
  LayerNorm() = default;
  LayerNorm(const WeightScope& weights, int64_t width, double eps);

  at::Tensor operator()(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  at::Tensor bias_;
  double eps_ = 1e-5;
};

// Over groups of channels of pictures [n, channels, h, w] in channels_last. Immutable; calls are
// thread-safe. On the CPU a picture's result does not depend on the others of the batch, nor on the
// number of threads.
class GroupNorm {
 public:
  GroupNorm() = default;
  // `groups` divides `channels`.
  GroupNorm(const WeightScope& weights, int64_t channels, int64_t groups, double eps);

  at::Tensor operator()(const at::Tensor& x) const { return Apply(x, {}, false); }
  // SiLU of the normalised x.
  at::Tensor Silu(const at::Tensor& x) const { return Apply(x, {}, true); }
  // SiLU of the normalised x + offset[:, :, None, None], offset [n, channels].
  at::Tensor Silu(const at::Tensor& x, const at::Tensor& offset) const {
    return Apply(x, offset, true);
  }

 private:
  at::Tensor Apply(const at::Tensor& x, const at::Tensor& offset, bool silu) const;

  at::Tensor weight_;  // float32 on the CPU
  at::Tensor bias_;
  int64_t groups_ = 1;
  double eps_ = 1e-5;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_NORM_H_
