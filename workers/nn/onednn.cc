#include "workers/nn/onednn.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <array>

#include "workers/nn/parts.h"

// Exported by libtorch_cpu for AOTInductor's frozen weights, but declared in no installed header.
namespace at::native {
TORCH_API int64_t data_ptr_from_mkldnn(const Tensor& mkldnn_tensor);
TORCH_API Tensor mkldnn_tensor_from_data_ptr(void* data_ptr, IntArrayRef dims, ScalarType dtype,
                                             Device device, const uint8_t* opaque_metadata,
                                             int64_t opaque_metadata_size);
}  // namespace at::native

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

std::array<int64_t, 2> Padding(ConvGeometry geometry) {
  return {geometry.rows_padded ? geometry.padding : 0, geometry.padding};
}

}  // namespace

bool Supports(at::ScalarType dtype, at::Device device) {
  if (!device.is_cpu() || !at::globalContext().userEnabledMkldnn() || !at::hasMKLDNN()) {
    return false;
  }
  if (dtype == at::kFloat || dtype == at::kBFloat16) return true;
#if defined(__x86_64__)
  if (dtype == at::kHalf) return __builtin_cpu_supports("avx512fp16");
#endif
  return false;
}

at::ScalarType ComputeType(at::ScalarType dtype, at::Device device) {
  if (dtype != at::kBFloat16 || !device.is_cpu() || !Supports(dtype, device)) return dtype;
#if defined(__x86_64__)
  const bool fast = __builtin_cpu_supports("amx-bf16") ||
                    (__builtin_cpu_is("amd") && __builtin_cpu_supports("avx512bf16"));
  return fast ? at::kBFloat16 : at::kFloat;
#else
  return dtype;
#endif
}

PackedWeight PackedWeight::ForLinear(const at::Tensor& weight, int64_t rows,
                                     at::ScalarType compute) {
  static const auto op = Find<at::Tensor(const at::Tensor&, std::optional<int64_t>)>(
      "mkldnn::_reorder_linear_weight", "");
  PackedWeight packed;
  packed.Store(op.call(weight.to(compute).contiguous(), rows), weight.scalar_type());
  return packed;
}

PackedWeight PackedWeight::ForConv(const at::Tensor& weight, ConvGeometry geometry,
                                   at::IntArrayRef input_sizes, at::ScalarType compute) {
  static const auto op =
      Find<at::Tensor(const at::Tensor&, at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t,
                      at::OptionalIntArrayRef)>("mkldnn::_reorder_convolution_weight", "");
  PackedWeight packed;
  packed.Store(op.call(weight.to(compute).contiguous(at::MemoryFormat::ChannelsLast),
                       Pair(geometry.padding), Pair(geometry.stride), Pair(1), 1, input_sizes),
               weight.scalar_type());
  return packed;
}

void PackedWeight::Store(const at::Tensor& packed, at::ScalarType storage) {
  if (packed.scalar_type() == storage) {
    stored_ = packed;
    return;
  }
  static const auto bytes = Find<int64_t(const at::Tensor&)>("mkldnn::_nbytes", "");
  static const auto layout =
      Find<at::Tensor(const at::Tensor&)>("mkldnn::_get_mkldnn_serialized_md", "");
  // The opaque elements in their order in memory, padding included.
  const int64_t count = bytes.call(packed) / packed.element_size();
  void* const data = reinterpret_cast<void*>(at::native::data_ptr_from_mkldnn(packed));
  stored_ = at::from_blob(data, {count}, packed.scalar_type()).to(storage);
  sizes_ = packed.sizes().vec();
  layout_ = layout.call(packed);
}

size_t PackedWeight::stored_bytes() const {
  if (layout_.defined()) return stored_.nbytes();
  static const auto bytes = Find<int64_t(const at::Tensor&)>("mkldnn::_nbytes", "");
  return static_cast<size_t>(bytes.call(stored_));
}

PackedWeight PackedWeight::Widened() const {
  if (!layout_.defined()) return *this;
  // The weight may be widened in inference mode or outside of it.
  const at::AutoDispatchBelowADInplaceOrView below;
  PackedWeight widened;
  widened.elements_ = at::empty(stored_.sizes(), at::kFloat);
  ForEachPart(stored_.numel(), static_cast<int64_t>(PartElements()), 64,
              [&](int64_t first, int64_t count) {
                widened.elements_.narrow(0, first, count).copy_(stored_.narrow(0, first, count));
              });
  widened.stored_ = at::native::mkldnn_tensor_from_data_ptr(
      widened.elements_.data_ptr(), sizes_, at::kFloat, at::kCPU, layout_.const_data_ptr<uint8_t>(),
      layout_.numel());
  return widened;
}

at::Tensor Linear(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                  std::string_view activation) {
  static const auto op =
      Find<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, std::string_view,
                      Scalars, OptionalString)>("mkldnn::_linear_pointwise", "");
  if (activation == "gelu") return op.call(x, packed, Optional(bias), "gelu", Scalars(), "none");
  if (activation == "gelu_tanh") {
    return op.call(x, packed, Optional(bias), "gelu", Scalars(), "tanh");
  }
  return op.call(x, packed, Optional(bias), activation, Scalars(), "");
}

at::Tensor LinearBinary(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                        const at::Tensor& other, std::string_view operation) {
  static const auto op = Find<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                         const OptionalTensor&, std::string_view)>(
      "mkldnn::_linear_pointwise", "binary");
  return op.call(x, other, packed, Optional(bias), operation);
}

at::Tensor Conv(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                ConvGeometry geometry) {
  static const auto op =
      Find<at::Tensor(const at::Tensor&, const at::Tensor&, const OptionalTensor&, at::IntArrayRef,
                      at::IntArrayRef, at::IntArrayRef, int64_t, std::string_view, Scalars,
                      OptionalString)>("mkldnn::_convolution_pointwise", "");
  return op.call(x, packed, Optional(bias), Padding(geometry), Pair(geometry.stride), Pair(1), 1,
                 "none", Scalars(), "");
}

void ConvAdd(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
             const at::Tensor& out, ConvGeometry geometry) {
  static const auto op =
      Find<at::Tensor&(at::Tensor&, const at::Tensor&, const at::Tensor&, const OptionalTensor&,
                       at::IntArrayRef, at::IntArrayRef, at::IntArrayRef, int64_t, std::string_view,
                       std::optional<at::Scalar>, OptionalString, Scalars, OptionalString)>(
          "mkldnn::_convolution_pointwise_", "binary");
  at::Tensor sum = out;
  op.call(sum, x, packed, Optional(bias), Padding(geometry), Pair(geometry.stride), Pair(1), 1,
          "add", std::nullopt, std::nullopt, Scalars(), std::nullopt);
}

}  // namespace hanmo::onednn
