#include "workers/models/text_layers_aten.h"

namespace hanmo {

at::Tensor Project(const at::Tensor& x, const LinearWeights& linear) {
  if (!linear.bias.defined()) return at::matmul(x, linear.weight.t());
  return at::addmm(linear.bias, x, linear.weight.t());
}

at::Tensor ApplyActivation(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kGeluErf:
      return at::gelu(x);
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kNone:
      break;
  }
  return x;
}

}  // namespace hanmo
