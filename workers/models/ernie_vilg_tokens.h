// What both implementations of ERNIE-ViLG share: its tensors by name, and the tokens of a batch as
// rows of its embedding tables.
#ifndef HANMO_WORKERS_MODELS_ERNIE_VILG_TOKENS_H_
#define HANMO_WORKERS_MODELS_ERNIE_VILG_TOKENS_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/models/decoder_family.h"
#include "workers/models/ernie_vilg.h"
#include "workers/models/ernie_vilg_slots.h"

namespace hanmo {

struct VilgLayerWeights {
  LinearWeights qkv, attention_out, inner, out;
  NormWeights attention_norm, out_norm;        // after the part, kPre: before it
  NormWeights attention_before, inner_before;  // with kSandwich
};
VilgLayerWeights TakeVilgLayer(const WeightScope& weights, const ErnieVilgConfig& config,
                               int64_t layer);

struct VilgOuterWeights {
  NormWeights norm;  // after the last layer, but for kPost
  LinearWeights text_inner, text_head, picture_head;
  NormWeights text_norm;
};
// `words`: of the embedding, for a tied head.
VilgOuterWeights TakeVilgOuter(const WeightScope& weights, const ErnieVilgConfig& config,
                               const at::Tensor& words);

// The tokens that a batch runs, padding left out, row after row.
struct VilgBatch {
  VilgBatch(absl::Span<const VilgRow> rows, const ErnieVilgConfig& config);

  struct Sequence {
    ErnieVilgSlots slots;
    const int32_t* page_table;
    int64_t first = 0, count = 0;  // its tokens
    int64_t first_logits = 0;      // of its tokens, the first whose logits are wanted
    bool paints = false;
  };
  std::vector<Sequence> sequences;  // one per row
  // Of each token: its position in its sequence, and its rows of the three tables.
  std::vector<int64_t> positions, ids, places, types;

  int64_t tokens() const { return static_cast<int64_t>(ids.size()); }

  // predict(paints, tokens) -> the logits of these tokens over picture tokens or over words. The
  // result is that of ErnieVilg::Run.
  std::vector<at::Tensor> GiveOut(
      absl::FunctionRef<at::Tensor(bool paints, const std::vector<int64_t>& tokens)> predict) const;
};

// Sums of embeddings, before their norm.
class VilgEmbedding {
 public:
  VilgEmbedding(const WeightScope& weights, const ErnieVilgConfig& config);

  // [tokens, width], float32 on the CPU, elsewhere in the serving type.
  at::Tensor Sum(const VilgBatch& batch) const;
  at::Tensor words() const { return words_; }
  const NormWeights& norm() const { return norm_; }

 private:
  at::Tensor words_;
  at::Tensor tokens_;  // words, then codes
  at::Tensor places_;  // positions of texts, then picture tokens in raster order
  at::Tensor types_;
  NormWeights norm_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_ERNIE_VILG_TOKENS_H_
