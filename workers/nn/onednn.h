// oneDNN's linear and convolution with weights packed once, reached through torch's dispatcher.
// Beside speed they give batch invariance: with packed weights every output row has one order of
// summation whatever the number of rows (nn_test checks it), which MKL's GEMM does not.
// Torch reports errors as c10::Error.
#ifndef HANMO_WORKERS_NN_ONEDNN_H_
#define HANMO_WORKERS_NN_ONEDNN_H_

#include <ATen/ATen.h>

#include <string_view>
#include <vector>

namespace hanmo::onednn {

// Whether weights of this type can be packed on this machine.
bool Supports(at::ScalarType dtype, at::Device device);

// The type of activations that go with weights of type `dtype`. It is `dtype`, but float32 for
// bfloat16 where the CPU multiplies float32 faster: bfloat16 pays with AMX and on AMD, while
// Intel's AVX512-BF16 alone runs at half of float32's rate, and other CPUs emulate it. Depends on
// the CPU's model only, so that a restarted worker computes the same bits.
at::ScalarType ComputeType(at::ScalarType dtype, at::Device device);

struct ConvGeometry {
  int64_t padding = 0;  // of columns, and of rows unless `rows_padded` is false
  int64_t stride = 1;
  bool rows_padded = true;
};

// A weight in oneDNN's blocked layout, in memory once. With bfloat16 weights and float32
// activations it is stored in bfloat16 and widened for each use. Immutable; calls are thread-safe.
class PackedWeight {
 public:
  PackedWeight() = default;
  // weight [out, in]; `rows` hints at the usual number of rows.
  static PackedWeight ForLinear(const at::Tensor& weight, int64_t rows, at::ScalarType compute);
  // weight [out, in, k, k]; `input_sizes` [n, in, h, w] is a hint.
  static PackedWeight ForConv(const at::Tensor& weight, ConvGeometry geometry,
                              at::IntArrayRef input_sizes, at::ScalarType compute);

  bool defined() const { return stored_.defined(); }
  size_t stored_bytes() const;  // in the storage type
  // Ready for the functions below: the same weight, or a widened copy for the time of its use.
  PackedWeight Widened() const;
  // The opaque tensor for the functions below, of a weight that is Widened().
  const at::Tensor& opaque() const { return stored_; }

 private:
  void Store(const at::Tensor& packed, at::ScalarType storage);

  at::Tensor stored_;  // opaque, or bfloat16 elements in the order of the opaque float32 ones
  std::vector<int64_t> sizes_;  // of the opaque tensor, when to be widened
  at::Tensor layout_;           // oneDNN's serialised description of it, when to be widened
  at::Tensor elements_;         // memory of the opaque tensor, in a widened copy
};

// x [rows, in] -> [rows, out]. `activation` is "none", "gelu" (erf), "gelu_tanh" or "swish".
at::Tensor Linear(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                  std::string_view activation);

// As Linear, then `operation` ("add" or "mul") with `other` [rows, out] in the same pass.
at::Tensor LinearBinary(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                        const at::Tensor& other, std::string_view operation);

// x [n, in, h, w] in channels_last -> [n, out, h', w'] in channels_last.
at::Tensor Conv(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
                ConvGeometry geometry);

// Adds the same to `out` [n, out, h', w'], channels_last and dense, in the same pass.
void ConvAdd(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& bias,
             const at::Tensor& out, ConvGeometry geometry);

}  // namespace hanmo::onednn

#endif  // HANMO_WORKERS_NN_ONEDNN_H_
