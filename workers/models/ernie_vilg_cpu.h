// ERNIE-ViLG on our own CPU kernels: a token's attention reads the slots that it sees, no others.
#ifndef HANMO_WORKERS_MODELS_ERNIE_VILG_CPU_H_
#define HANMO_WORKERS_MODELS_ERNIE_VILG_CPU_H_

#include <ATen/ATen.h>

#include <array>
#include <cstdint>
#include <vector>

#include "workers/models/ernie_vilg.h"
#include "workers/models/ernie_vilg_tokens.h"
#include "workers/models/text_layers_cpu.h"

namespace hanmo {

class ErnieVilgCpu : public ErnieVilg {
 public:
  // Errors go to weights.status(); the object is usable only when that is OK. Packs layer by layer,
  // so that at most one layer is in memory twice.
  ErnieVilgCpu(const ErnieVilgConfig& config, const WeightScope& weights, CpuIsa isa);

  int64_t page_bytes() const override { return parts_.PageBytes(config().layers, heads_); }
  KvCache MakeCache(int64_t pages) const override {
    return parts_.MakeCache(config().layers, heads_, pages);
  }

 protected:
  std::vector<at::Tensor> Forward(absl::Span<const VilgRow> rows, KvCache& cache) const override;

 private:
  struct Layer {
    CpuMatrix qkv, attention_out, inner, out;
    CpuNorm attention_norm, out_norm;
    CpuNorm attention_before, inner_before;  // kSandwich
  };
  // The buffers between the layers, one row per token.
  struct Buffers {
    at::Tensor residual;  // float32
    at::Tensor branch;    // float32, kSandwich
    at::Tensor normed;    // activations, width wide: input of the next part
    at::Tensor qkv;       // float32
    at::Tensor attended;  // activations, width wide
    at::Tensor inner;     // activations
  };
  using Places = std::array<TokenPlaces, std::size(kSights)>;

  // Of the sights that layers have.
  Places PlacesOf(const VilgBatch& batch) const;
  Buffers Embed(const VilgBatch& batch) const;
  // Makes buffers.normed the input of a part: kPre with `norm`, kSandwich with `before`.
  void Enter(const CpuNorm& norm, const CpuNorm& before, Buffers& buffers) const;
  // Adds a part's last matrix to the residual.
  void Leave(const CpuMatrix& matrix, const at::Tensor& input, const CpuNorm& norm,
             Buffers& buffers) const;
  // Logits of the wanted tokens over picture tokens, or over words.
  at::Tensor Predict(bool paints, const std::vector<int64_t>& wanted, const Buffers& buffers) const;

  const HeadShape heads_;
  const CpuTextLayers parts_;
  const VilgEmbedding embedding_;
  CpuNorm embedding_norm_, norm_, text_norm_;
  std::vector<Layer> layers_;
  CpuMatrix text_inner_, text_head_, picture_head_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_ERNIE_VILG_CPU_H_
