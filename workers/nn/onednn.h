// oneDNN's linear and convolution with weights packed once, reached through torch's dispatcher.
// Beside speed they give batch invariance: with packed weights every output row has one order of
// summation whatever the number of rows (nn_test checks it), which MKL's GEMM does not.
// All functions are thread-safe. Torch reports errors as c10::Error.
#ifndef HANMO_WORKERS_NN_ONEDNN_H_
#define HANMO_WORKERS_NN_ONEDNN_H_

#include <ATen/ATen.h>

#include <string_view>

namespace hanmo::onednn {

// Whether packed weights of this type run natively on this machine's CPU.
bool Supports(at::ScalarType dtype, at::Device device);

// weight [out, in] -> an opaque tensor for Linear. `rows` hints at the usual number of rows.
at::Tensor PackLinear(const at::Tensor& weight, int64_t rows);

// x [rows, in] -> [rows, out]. `activation` is "none", "gelu" (erf), "gelu_tanh" or "swish".
at::Tensor Linear(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                  std::string_view activation);

// As Linear, then `operation` ("add" or "mul") with `other` [rows, out] in the same pass.
at::Tensor LinearBinary(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                        const at::Tensor& other, std::string_view operation);

struct ConvGeometry {
  int64_t padding = 0;
  int64_t stride = 1;
};

// weight [out, in, k, k] -> an opaque tensor for Conv. `input_sizes` [n, in, h, w] is a hint.
at::Tensor PackConv(const at::Tensor& weight, ConvGeometry geometry, at::IntArrayRef input_sizes);

// x [n, in, h, w] in channels_last -> [n, out, h', w'] in channels_last.
at::Tensor Conv(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                ConvGeometry geometry);

// As Conv, then adds `other` [n, out, h', w'] in the same pass.
at::Tensor ConvAdd(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                   const at::Tensor& other, ConvGeometry geometry);

}  // namespace hanmo::onednn

#endif  // HANMO_WORKERS_NN_ONEDNN_H_
