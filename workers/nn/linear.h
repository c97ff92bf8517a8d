// A linear layer over the last dimension, with what usually follows it fused in.
#ifndef HANMO_WORKERS_NN_LINEAR_H_
#define HANMO_WORKERS_NN_LINEAR_H_

#include <ATen/ATen.h>

#include <optional>
#include <string_view>

#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/onednn.h"

namespace hanmo {

enum class Activation { kNone, kGelu, kGeluTanh, kQuickGelu, kRelu, kSilu };

// By the name that config.json files use ("gelu", "gelu_new", "quick_gelu" …).
std::optional<Activation> ActivationNamed(std::string_view name);

// `x` through `activation`, unfused.
at::Tensor Activate(const at::Tensor& x, Activation activation);

// Immutable after construction; calls are thread-safe. On the CPU the weight is held packed for
// oneDNN only, so that it is in memory once, a row's result does not depend on the other rows, and
// many rows are computed in parts (parts.h).
class Linear {
 public:
  Linear() = default;
  // weight [out, in] (or [out, in, 1, 1]: a 1x1 convolution is a linear layer over pixels) and,
  // with `bias`, bias [out].
  Linear(const WeightScope& weights, int64_t in, int64_t out, bool bias = true);
  // From tensors in the serving type: weight [out, in], bias [out] or undefined.
  Linear(const at::Tensor& weight, const at::Tensor& bias);

  // x [..., in] in onednn::ComputeType of the serving type -> [..., out].
  at::Tensor operator()(const at::Tensor& x, Activation activation = Activation::kNone) const;
  // The same, plus (or times) `other` [..., out].
  at::Tensor Add(const at::Tensor& x, const at::Tensor& other) const;
  at::Tensor Multiply(const at::Tensor& x, const at::Tensor& other) const;

  // The same layer, ready for many calls: its weight, if it has to be widened, is so already.
  Linear Widened() const;

  bool defined() const { return out_ > 0; }

 private:
  void Hold(const at::Tensor& weight);
  template <typename F>
  at::Tensor InParts(const at::Tensor& x, const F& f) const;
  at::Tensor Binary(const at::Tensor& x, const at::Tensor& other, std::string_view operation) const;

  onednn::PackedWeight packed_;
  at::Tensor weight_;  // [out, in], where packing is not supported
  at::Tensor bias_;    // undefined without bias
  int64_t out_ = 0;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_LINEAR_H_
