#include "workers/nn/linear.h"

#include "workers/nn/onednn.h"

namespace hanmo {
namespace {

// A usual number of rows: 32x32 latent pixels of a guided pair.
constexpr int64_t kRowsHint = 2048;

std::string_view FusedName(Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return "none";
    case Activation::kGelu:
      return "gelu";
    case Activation::kGeluTanh:
      return "gelu_tanh";
    default:
      return "";
  }
}

// Rows of one matrix. A single row is doubled: oneDNN has another kernel, with another order of
// summation, for it.
at::Tensor AsRows(const at::Tensor& x) {
  at::Tensor rows = x.reshape({-1, x.size(-1)}).contiguous();
  return rows.size(0) == 1 ? rows.expand({2, -1}).contiguous() : rows;
}

at::Tensor AsShapeOf(const at::Tensor& rows, const at::Tensor& x) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = rows.size(-1);
  const int64_t count = x.numel() / x.size(-1);
  return rows.narrow(0, 0, count).view(shape);
}

}  // namespace

std::optional<Activation> ActivationNamed(std::string_view name) {
  if (name == "gelu" || name == "gelu_python") return Activation::kGelu;
  // Three spellings of the tanh approximation; they differ by float rounding only.
  if (name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh") {
    return Activation::kGeluTanh;
  }
  if (name == "quick_gelu") return Activation::kQuickGelu;
  if (name == "relu") return Activation::kRelu;
  if (name == "silu" || name == "swish") return Activation::kSilu;
  return std::nullopt;
}

at::Tensor Activate(const at::Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::kNone:
      return x;
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kQuickGelu:
      return x * at::sigmoid(1.702 * x);
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kSilu:
      return at::silu(x);
  }
  return x;
}

Linear::Linear(const WeightScope& weights, int64_t in, int64_t out, bool bias) : out_(out) {
  const bool as_conv = weights.Has("weight") && weights.Shape("weight").size() == 4;
  at::Tensor weight = as_conv ? weights.Take("weight", {out, in, 1, 1}).reshape({out, in})
                              : weights.Take("weight", {out, in});
  if (bias) bias_ = weights.Take("bias", {out});
  if (weights.status().ok()) Hold(weight);
}

Linear::Linear(const at::Tensor& weight, const at::Tensor& bias)
    : bias_(bias), out_(weight.size(0)) {
  Hold(weight);
}

void Linear::Hold(const at::Tensor& weight) {
  packed_ = onednn::Supports(weight.scalar_type(), weight.device());
  weight_ = packed_ ? onednn::PackLinear(weight, kRowsHint) : weight;
}

at::Tensor Linear::operator()(const at::Tensor& x, Activation activation) const {
  if (!packed_) return Activate(at::linear(x, weight_, bias_), activation);
  const std::string_view fused = FusedName(activation);
  at::Tensor rows = onednn::Linear(AsRows(x), weight_, bias_, fused.empty() ? "none" : fused);
  if (fused.empty()) rows = Activate(rows, activation);
  return AsShapeOf(rows, x);
}

at::Tensor Linear::Add(const at::Tensor& x, const at::Tensor& other) const {
  if (!packed_) return at::linear(x, weight_, bias_).add_(other);
  return Binary(x, other, "add");
}

at::Tensor Linear::Multiply(const at::Tensor& x, const at::Tensor& other) const {
  if (!packed_) return at::linear(x, weight_, bias_).mul_(other);
  return Binary(x, other, "mul");
}

at::Tensor Linear::Binary(const at::Tensor& x, const at::Tensor& other,
                          std::string_view operation) const {
  at::Tensor rows =
      onednn::LinearBinary(AsRows(x), weight_, bias_, AsRows(other), operation);
  return AsShapeOf(rows, x);
}

}  // namespace hanmo
