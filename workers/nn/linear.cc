#include "workers/nn/linear.h"

#include <ATen/Parallel.h>

#include <vector>

#include "workers/kernels/group_norm.h"
#include "workers/nn/parts.h"

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

// SiLU of factor * x, row by row: at::silu treats the last few elements of the whole tensor apart,
// and which those are depends on the number of rows.
at::Tensor SiluOfRows(const at::Tensor& x, float factor) {
  const bool own =
      x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
  if (!own) return at::silu(factor * x);
  const at::Tensor from = x.contiguous();
  const at::Tensor to = at::empty_like(from);
  const int64_t width = x.size(-1);
  const std::vector<float> scale(width, factor), shift(width, 0.0f);
  const ChannelScale by = {.scale = scale.data(), .shift = shift.data(), .silu = true};
  at::parallel_for(0, x.numel() / width, 16, [&](int64_t begin, int64_t end) {
    if (x.scalar_type() == at::kFloat) {
      ScaleChannels(from.const_data_ptr<float>() + begin * width, end - begin, width, by,
                    to.data_ptr<float>() + begin * width);
    } else {
      ScaleChannels(static_cast<const uint16_t*>(from.const_data_ptr()) + begin * width,
                    end - begin, width, by, static_cast<uint16_t*>(to.data_ptr()) + begin * width);
    }
  });
  return to;
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
      return SiluOfRows(x, 1.702f) / 1.702f;  // x * sigmoid(1.702 x)
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kSilu:
      return SiluOfRows(x, 1.0f);
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
  if (!onednn::Supports(weight.scalar_type(), weight.device())) {
    weight_ = weight;
    return;
  }
  const at::ScalarType compute = onednn::ComputeType(weight.scalar_type(), weight.device());
  packed_ = onednn::PackedWeight::ForLinear(weight, kRowsHint, compute);
  if (bias_.defined()) bias_ = bias_.to(compute);
}

Linear Linear::Widened() const {
  Linear widened = *this;
  widened.packed_ = packed_.Widened();
  return widened;
}

// f(rows of x, first of them, opaque weight) for parts of x.
template <typename F>
at::Tensor Linear::InParts(const at::Tensor& x, const F& f) const {
  const at::Tensor rows = AsRows(x);
  const onednn::PackedWeight weight = packed_.Widened();
  const RowCost cost = {.operations = 2.0 * static_cast<double>(rows.size(1) * out_)};
  const at::Tensor y = MapRows(rows.size(0), cost, [&](int64_t first, int64_t count) {
    return f(rows.narrow(0, first, count), first, weight.opaque());
  });
  return AsShapeOf(y, x);
}

at::Tensor Linear::operator()(const at::Tensor& x, Activation activation) const {
  if (!packed_.defined()) return Activate(at::linear(x, weight_, bias_), activation);
  const std::string_view fused = FusedName(activation);
  return InParts(x, [&](const at::Tensor& rows, int64_t, const at::Tensor& weight) {
    const at::Tensor y = onednn::Linear(rows, weight, bias_, fused.empty() ? "none" : fused);
    return fused.empty() ? Activate(y, activation) : y;
  });
}

at::Tensor Linear::Add(const at::Tensor& x, const at::Tensor& other) const {
  if (!packed_.defined()) return at::linear(x, weight_, bias_).add_(other);
  return Binary(x, other, "add");
}

at::Tensor Linear::Multiply(const at::Tensor& x, const at::Tensor& other) const {
  if (!packed_.defined()) return at::linear(x, weight_, bias_).mul_(other);
  return Binary(x, other, "mul");
}

at::Tensor Linear::Binary(const at::Tensor& x, const at::Tensor& other,
                          std::string_view operation) const {
  const at::Tensor others = AsRows(other);
  return InParts(x, [&](const at::Tensor& rows, int64_t first, const at::Tensor& weight) {
    return onednn::LinearBinary(rows, weight, bias_, others.narrow(0, first, rows.size(0)),
                                operation);
  });
}

}  // namespace hanmo
