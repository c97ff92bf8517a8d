// A square 2D convolution over channels_last pictures.
#ifndef HANMO_WORKERS_NN_CONV2D_H_
#define HANMO_WORKERS_NN_CONV2D_H_

#include <ATen/ATen.h>

#include <vector>

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
// oneDNN only, a picture's result does not depend on the other pictures of the batch, and large
// calls are computed in parts (parts.h): channels of the output where the weight is large, pictures
// or bands of their rows where the pictures are.
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
  // Some channels of the output.
  struct Group {
    int64_t first, channels;
    onednn::PackedWeight weight;
    at::Tensor bias;
  };
  // A part of the output: whole pictures, or some rows of one.
  struct Area {
    int64_t picture, pictures, row, rows;
    at::Tensor Of(const at::Tensor& out, const Group& group) const;
  };

  at::Tensor Convolve(const at::Tensor& x, const at::Tensor& other) const;
  // The area of the group's channels of `out`, plus that of `other` if defined.
  void ConvolveArea(const Group& group, const Area& area, const at::Tensor& x,
                    const at::Tensor& other, const at::Tensor& out) const;
  // The rows of x that an area of `out_rows` rows in all is made from, with zeros where the padding
  // is.
  at::Tensor InputOf(const Area& area, const at::Tensor& x, int64_t out_rows) const;
  // Calls run(Area) for all of `out`, and yields after each.
  template <typename Run>
  void ForEachArea(const at::Tensor& out, const Run& run) const;

  std::vector<Group> groups_;
  at::Tensor weight_;  // where packing is not supported
  at::Tensor bias_;
  ConvShape shape_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_CONV2D_H_
