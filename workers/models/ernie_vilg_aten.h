// ERNIE-ViLG on ATen operators, for GPUs. On the CPU it is what ernie_vilg_cpu.h is compared with.
#ifndef HANMO_WORKERS_MODELS_ERNIE_VILG_ATEN_H_
#define HANMO_WORKERS_MODELS_ERNIE_VILG_ATEN_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <vector>

#include "workers/models/ernie_vilg.h"
#include "workers/models/ernie_vilg_tokens.h"

namespace hanmo {

class ErnieVilgAten : public ErnieVilg {
 public:
  // Errors go to weights.status(); the object is usable only when that is OK.
  ErnieVilgAten(const ErnieVilgConfig& config, const WeightScope& weights);

  int64_t page_bytes() const override;
  // Keys and values are [slots, heads, head_dim] here, 16 slots to a page.
  KvCache MakeCache(int64_t pages) const override;

 protected:
  std::vector<at::Tensor> Forward(absl::Span<const VilgRow> rows, KvCache& cache) const override;

 private:
  // Tokens that attend in one call: each reads the same number of gathered slots, less the masked.
  struct Group {
    int64_t sequences = 0;
    at::Tensor tokens;  // of the batch, sequence by sequence
    at::Tensor slots;   // of the cache, [sequences · slots of each]
    at::Tensor hidden;  // bool [sequences, 1, tokens of each, slots of each]
  };
  // Where the tokens of a batch are written and what they read, in layers of one sight.
  struct Plan {
    at::Tensor written;  // slots of the cache
    std::vector<Group> groups;
  };

  Plan MakePlan(Sight sight, const VilgBatch& batch) const;
  // Of `sequences`, each of which runs equally many tokens.
  Group MakeGroup(Sight sight, const VilgBatch& batch,
                  const std::vector<const VilgBatch::Sequence*>& sequences) const;
  at::Tensor Norm(const at::Tensor& x, const NormWeights& norm) const;
  at::Tensor Attention(const VilgLayerWeights& layer, const at::Tensor& x, const Plan& plan,
                       at::Tensor& keys, at::Tensor& values) const;
  at::Tensor Attend(const Group& group, const at::Tensor& qkv, const at::Tensor& keys,
                    const at::Tensor& values) const;
  at::Tensor FeedForward(const VilgLayerWeights& layer, const at::Tensor& x) const;
  at::Tensor RunLayer(const VilgLayerWeights& layer, const at::Tensor& x, const Plan& plan,
                      at::Tensor& keys, at::Tensor& values) const;
  at::Tensor Predict(bool paints, const at::Tensor& x) const;

  const VilgEmbedding embedding_;
  std::vector<VilgLayerWeights> layers_;
  VilgOuterWeights outer_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_ERNIE_VILG_ATEN_H_
