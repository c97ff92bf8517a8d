// Layer and group normalisation with learned scale and shift.
#ifndef HANMO_WORKERS_NN_NORM_H_
#define HANMO_WORKERS_NN_NORM_H_

#include <ATen/ATen.h>

#include "workers/checkpoint/checkpoint.h"

namespace hanmo {

// Over the last dimension. Immutable; calls are thread-safe.
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

// Over groups of channels of pictures [n, channels, h, w]. Immutable; calls are thread-safe.
class GroupNorm {
 public:
  GroupNorm() = default;
  // `groups` divides `channels`.
  GroupNorm(const WeightScope& weights, int64_t channels, int64_t groups, double eps);

  at::Tensor operator()(const at::Tensor& x) const;
  // SiLU of the normalised x.
  at::Tensor Silu(const at::Tensor& x) const;

 private:
  at::Tensor weight_;
  at::Tensor bias_;
  int64_t groups_ = 1;
  double eps_ = 1e-5;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_NORM_H_
