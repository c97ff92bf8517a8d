// What text models on the CPU are made of: packed matrices, norms, gates and attention over the
// paged cache, computed by our kernels in float32 sums of fixed order, on ATen's intra-op threads.
#ifndef HANMO_WORKERS_MODELS_TEXT_LAYERS_CPU_H_
#define HANMO_WORKERS_MODELS_TEXT_LAYERS_CPU_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "workers/kernels/text_kernels.h"
#include "workers/models/decoder_config.h"
#include "workers/models/text_model.h"

namespace hanmo {

struct HeadShape {
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
};

// Where the tokens of a batch are written in their pages, and what they read.
struct TokenPlaces {
  std::vector<const int32_t*> page_tables;  // of token t: the pages of slots 0–15, 16–31 …
  std::vector<int32_t> slots;               // written by token t
  std::vector<SlotRange> ranges;            // token t reads ranges[first_range[t]] up to
  std::vector<int64_t> first_range = {0};   // ranges[first_range[t + 1]], in this order
  int64_t most_slots = 0;                   // touched by the ranges of one token

  // `reads` has at least one range; every slot in them is written, by this batch at the latest.
  void Add(const int32_t* page_table, int32_t slot, absl::Span<const SlotRange> reads);
  int64_t tokens() const { return static_cast<int64_t>(slots.size()); }
};

// The attention of one layer: its heads, and its part of a KvCache.
struct CpuAttention {
  HeadShape shape;
  double scale = 1;
  at::Tensor keys, values;
};

struct CpuMatrix {
  PackedMatrix packed;
  at::Tensor data;  // owns packed.data
  at::Tensor bias;  // float32, padded; undefined: none
};

struct CpuNorm {
  NormKind kind = NormKind::kLayerNorm;
  double epsilon = 0;
  at::Tensor weight, bias;  // float32; an RMS norm has no bias
};

// Tensors between layers have one row per token, padded to whole panels: float32, or "activations",
// the type that linear layers take, whose padding stays zero. Thread-safe.
class CpuTextLayers {
 public:
  // Weights and cache in `dtype`; `isa` is one of SupportedIsas().
  CpuTextLayers(at::ScalarType dtype, CpuIsa isa);

  // weight [out, in], either way around in memory; bias [out] or undefined.
  CpuMatrix Pack(const at::Tensor& weight, const at::Tensor& bias) const;
  static CpuNorm ToFloat(NormKind kind, double epsilon, const at::Tensor& weight,
                         const at::Tensor& bias);

  at::Tensor Activations(int64_t rows, int64_t columns) const;  // zeros
  static at::Tensor Floats(int64_t rows, int64_t columns);      // anything

  void Normalize(const at::Tensor& x, const CpuNorm& norm, at::Tensor& output) const;
  // x is float32 and stays so.
  void NormalizeInPlace(at::Tensor& x, const CpuNorm& norm) const;
  void Multiply(const CpuMatrix& matrix, const at::Tensor& input, at::Tensor& output,
                LinearCall::Output output_as,
                TextActivation activation = TextActivation::kNone) const;
  // output = activation(x[:, :columns]) · x[:, columns : 2 columns]
  void Gate(const at::Tensor& x, int64_t columns, TextActivation activation,
            at::Tensor& output) const;

  // The bytes of one page in `layers` layers, and that many pages of zeros, which take no memory
  // before they are first written.
  int64_t PageBytes(int64_t layers, const HeadShape& shape) const;
  KvCache MakeCache(int64_t layers, const HeadShape& shape, int64_t pages) const;
  // Rows of qkv are float32: queries of all heads, keys of all kv heads, their values.
  void WriteCache(const at::Tensor& qkv, const TokenPlaces& places,
                  const CpuAttention& attention) const;
  void Attend(const at::Tensor& qkv, const TokenPlaces& places, const CpuAttention& attention,
              at::Tensor& output) const;

  const TextKernels& kernels() const { return kernels_; }

 private:
  void NormalizeAs(WeightType type, const at::Tensor& x, const CpuNorm& norm,
                   at::Tensor& output) const;

  const WeightType type_;
  const at::ScalarType dtype_;
  const CpuIsa isa_;
  const TextKernels& kernels_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_TEXT_LAYERS_CPU_H_
