#include "workers/nn/onednn.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include <array>

namespace hanmo::onednn {
namespace {

using OptionalTensor = std::optional<at::Tensor>;
using Scalars = c10::List<std::optional<at::Scalar>>;
using OptionalString = std::optional<std::string_view>;

template <typename Signature>
c10::TypedOperatorHandle<Signature> Find(const char* name, const char* overload) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, overload).typed<Signature>();
}

OptionalTensor Optional(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}

// The ops take torch's int lists as SymInt.
std::array<int64_t, 2> Pair(int64_t value) { return {value, value}; }

}  // namespace

bool Supports(at::ScalarType dtype, at::Device device) {
  if (!device.is_cpu() || !at::globalContext().userEnabledMkldnn() || !at::hasMKLDNN()) {
    return false;
  }
  if (dtype == at::kFloat) return true;
#if defined(__x86_64__)
  // Below these instruction sets oneDNN emulates the type slowly or refuses it.
  if (dtype == at::kBFloat16) return __builtin_cpu_supports("avx512bw");
  if (dtype == at::kHalf) return __builtin_cpu_supports("avx512fp16");
#endif
  return false;
}

at::Tensor PackLinear(const at::Tensor& weight, int64_t rows) {
  static const auto op = Find<at::Tensor(const at::Tensor&, std::optional<int64_t>)>(
      "mkldnn::_reorder_linear_weight", "");
  return op.call(weight.contiguous(), rows);
}

at::Tensor Linear(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                  std::string_view activation) {
  static const auto op =
      Find<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&,
                      std::string_view, Scalars, OptionalString)>("mkldnn::_linear_pointwise", "");
  if (activation == "gelu") return op.call(x, packed, Optional(bias), "gelu", Scalars(), "none");
  if (activation == "gelu_tanh") {
    return op.call(x, packed, Optional(bias), "gelu", Scalars(), "tanh");
  }
  return op.call(x, packed, Optional(bias), activation, Scalars(), "");
}

at::Tensor LinearBinary(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                        const at::Tensor& other, std::string_view operation) {
  static const auto op =
      Find<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                      const OptionalTensor&, std::string_view)>("mkldnn::_linear_pointwise",
                                                                "binary");
  return op.call(x, other, packed, Optional(bias), operation);
}

at::Tensor PackConv(const at::Tensor& weight, ConvGeometry geometry, at::IntArrayRef input_sizes) {
  static const auto op =
      Find<at::Tensor(const at::Tensor&, at::IntArrayRef, at::IntArrayRef,
                      at::IntArrayRef, int64_t, at::OptionalIntArrayRef)>(
          "mkldnn::_reorder_convolution_weight", "");
  return op.call(weight.contiguous(at::MemoryFormat::ChannelsLast), Pair(geometry.padding),
                 Pair(geometry.stride), Pair(1), 1, input_sizes);
}

at::Tensor Conv(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                ConvGeometry geometry) {
  static const auto op =
      Find<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&,
                      at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t,
                      std::string_view, Scalars, OptionalString)>("mkldnn::_convolution_pointwise",
                                                                  "");
  return op.call(x, packed, Optional(bias), Pair(geometry.padding), Pair(geometry.stride), Pair(1),
                 1, "none", Scalars(), "");
}

at::Tensor ConvAdd(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                   const at::Tensor& other, ConvGeometry geometry) {
  static const auto op =
      Find<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                      const OptionalTensor&, at::IntArrayRef, at::IntArrayRef,
                      at::IntArrayRef, int64_t, std::string_view,
                      std::optional<at::Scalar>, OptionalString, Scalars, OptionalString)>(
          "mkldnn::_convolution_pointwise", "binary");
  return op.call(x, other, packed, Optional(bias), Pair(geometry.padding), Pair(geometry.stride),
                 Pair(1), 1, "add", std::nullopt, std::nullopt, Scalars(), std::nullopt);
}

}  // namespace hanmo::onednn
