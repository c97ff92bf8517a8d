// GPT-2 on our own CPU kernels: prepacked weights, float32 sums in fixed order, threads by panels.
#ifndef HANMO_WORKERS_MODELS_GPT2_CPU_H_
#define HANMO_WORKERS_MODELS_GPT2_CPU_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "workers/kernels/text_kernels.h"
#include "workers/models/gpt2.h"
#include "workers/models/gpt2_weights.h"

namespace hanmo {

class Gpt2Cpu : public Gpt2 {
 public:
  // Errors go to weights.status(); the object is usable only when that is OK. Packs layer by layer,
  // so that at most one layer, or the embedding, is in memory twice.
  Gpt2Cpu(const Gpt2Config& config, const WeightScope& weights, int64_t weight_bytes, CpuIsa isa);

  int64_t page_bytes() const override;
  Gpt2Cache MakeCache(int64_t pages) const override;

 protected:
  Gpt2Logits Forward(absl::Span<const Gpt2Row> rows, Gpt2Cache& cache) const override;

 private:
  struct Matrix {
    PackedMatrix packed;
    at::Tensor data;  // owns packed.data
    at::Tensor bias;  // float32, padded; undefined: none
  };
  struct Norm {
    at::Tensor weight, bias;  // float32
  };
  struct Layer {
    Norm ln_1, ln_2;
    Matrix attention_in, attention_out, mlp_in, mlp_out;
  };
  // What each token of a batch needs, and the buffers between the layers; rows are padded to whole
  // panels and the padding of activations stays zero.
  struct Batch {
    int64_t tokens = 0;
    std::vector<int32_t> contexts;
    std::vector<const int32_t*> page_tables;
    at::Tensor residual;  // float32
    at::Tensor normed;    // activations: input of a linear layer, n_embd wide
    at::Tensor qkv;       // float32
    at::Tensor inner;     // activations, n_inner wide
  };

  // `outputs` and `inputs` name the dimensions of the tensor, which may lie either way around.
  Matrix Pack(const at::Tensor& weight, int64_t input_dimension, const at::Tensor& bias) const;
  static Norm ToFloat(const Gpt2Norm& norm);

  at::Tensor Activations(int64_t rows, int64_t columns) const;  // zeros
  Batch Embed(absl::Span<const Gpt2Row> rows) const;
  void Normalize(const at::Tensor& x, const Norm& norm, at::Tensor& output) const;
  void Multiply(const Matrix& matrix, const at::Tensor& input, at::Tensor& output,
                LinearCall::Output output_as, Activation activation = Activation::kNone) const;
  void WriteCacheLayer(const Batch& batch, at::Tensor& keys, at::Tensor& values) const;
  void Attend(Batch& batch, int64_t layer, const Gpt2Cache& cache) const;

  const WeightType type_;
  const at::ScalarType dtype_;
  const CpuIsa isa_;
  const TextKernels& kernels_;
  std::vector<Layer> layers_;
  Matrix embedding_, head_;
  at::Tensor positions_;  // float32 [n_positions, n_embd]
  Norm ln_f_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_GPT2_CPU_H_
