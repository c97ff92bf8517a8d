// A square 2D convolution over channels_last pictures.
#ifndef HANMO_WORKERS_NN_CONV2D_H_
#define HANMO_WORKERS_NN_CONV2D_H_

#include <ATen/ATen.h>

#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/onednn.h"

namespace hanmo {

struct ConvShape {
  int64_t in = 0;
  int64_t out = 0;
  int64_t kernel = 3;
  int64_t stride = 1;
  int64_t padding = 1;
  int64_t size_hint = 64;  // the usual height and width of the input
};

// Immutable after construction; calls are thread-safe. On the CPU the weight is held packed for
// oneDNN only, and a picture's result does not depend on the other pictures of the batch.
class Conv2d {
 public:
  Conv2d() = default;
  // weight [out, in, kernel, kernel] and bias [out].
  Conv2d(const WeightScope& weights, const ConvShape& shape);

  // x [n, in, h, w] in onednn::ComputeType of the serving type -> [n, out, h', w'], both
  // channels_last.
  at::Tensor operator()(const at::Tensor& x) const;
  // The same, plus `other` [n, out, h', w'].
  at::Tensor Add(const at::Tensor& x, const at::Tensor& other) const;

 private:
  onednn::PackedWeight packed_;
  at::Tensor weight_;  // where packing is not supported
  at::Tensor bias_;
  ConvShape shape_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_CONV2D_H_
