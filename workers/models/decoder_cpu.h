// Decoders on our own CPU kernels: prepacked weights, float32 sums in fixed order, threads by
// panels.
#ifndef HANMO_WORKERS_MODELS_DECODER_CPU_H_
#define HANMO_WORKERS_MODELS_DECODER_CPU_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "workers/models/decoder_family.h"
#include "workers/models/text_layers_cpu.h"
#include "workers/models/text_model.h"

namespace hanmo {

class DecoderCpu : public TextModel {
 public:
  // Errors go to weights.status(); the object is usable only when that is OK. Packs layer by layer,
  // so that at most one layer, or the embedding, is in memory twice.
  DecoderCpu(const DecoderFamily& family, const DecoderConfig& config, const WeightScope& weights,
             CpuIsa isa);

  int64_t page_bytes() const override { return parts_.PageBytes(config_.layers, heads_); }
  KvCache MakeCache(int64_t pages) const override {
    return parts_.MakeCache(config_.layers, heads_, pages);
  }

 protected:
  TextLogits Forward(absl::Span<const TextRow> rows, KvCache& cache) const override;

 private:
  struct Layer {
    CpuNorm attention_norm, mlp_norm;
    CpuNorm query_norm, key_norm;  // with head_norms
    CpuMatrix qkv, attention_out, mlp_in, mlp_out;
  };
  // What each token of a batch needs, and the buffers between the layers.
  struct Batch {
    TokenPlaces places;
    RopeAngles angles;    // with rotates
    at::Tensor residual;  // float32
    at::Tensor normed;    // activations: input of a linear layer, width wide
    at::Tensor qkv;       // float32
    at::Tensor attended;  // activations, query_columns wide
    at::Tensor gates;     // float32, 2 inner wide, with gated
    at::Tensor inner;     // activations, inner wide
  };

  Batch Embed(absl::Span<const TextRow> rows) const;
  // Norms and rotary positions of queries and keys, in place.
  void PrepareHeads(const Layer& layer, Batch& batch) const;
  void Mlp(const Layer& layer, Batch& batch) const;

  const DecoderConfig config_;
  const HeadShape heads_;
  const CpuTextLayers parts_;
  std::vector<Layer> layers_;
  CpuMatrix embedding_, head_;
  at::Tensor positions_;  // float32 [context_tokens, width], with learned_positions
  CpuNorm norm_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_DECODER_CPU_H_
