#include "workers/models/text_layers_aten.h"

namespace hanmo {

at::Tensor Project(const at::Tensor& x, const LinearWeights& linear) {
  if (!linear.bias.defined()) return at::matmul(x, linear.weight.t());
  return at::addmm(linear.bias, x, linear.weight.t());
}

at::Tensor ApplyActivation(const at::Tensor& x, TextActivation activation) {
  switch (activation) {
    case TextActivation::kGeluTanh:
      return at::gelu(x, "tanh");
    case TextActivation::kGeluErf:
      return at::gelu(x);
    case TextActivation::kRelu:
      return at::relu(x);
    case TextActivation::kSilu:
      return at::silu(x);
    case TextActivation::kNone:
      break;
  }
  return x;
}

}  // namespace hanmo
