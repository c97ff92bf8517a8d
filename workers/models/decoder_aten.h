// Decoders on ATen operators, for GPUs. On the CPU they are what decoder_cpu.h is compared with.
#ifndef HANMO_WORKERS_MODELS_DECODER_ATEN_H_
#define HANMO_WORKERS_MODELS_DECODER_ATEN_H_

#include <cstdint>
#include <vector>

#include "workers/models/decoder_family.h"
#include "workers/models/text_model.h"

namespace hanmo {

class DecoderAten : public TextModel {
 public:
  // Errors go to weights.status(); the object is usable only when that is OK.
  DecoderAten(const DecoderFamily& family, const DecoderConfig& config, const WeightScope& weights);

  int64_t page_bytes() const override;
  KvCache MakeCache(int64_t pages) const override;

 protected:
  TextLogits Forward(absl::Span<const TextRow> rows, KvCache& cache) const override;

 private:
  // Where the tokens of a batch go, on the device: ids, positions, page and slot of each.
  struct Plan {
    at::Tensor tokens, positions, pages, slots;
    std::vector<at::Tensor> tables;  // page ids of each row
    RopeAngles angles;               // [tokens, 1, head_dim / 2], with rotates
  };
  Plan MakePlan(absl::Span<const TextRow> rows) const;
  at::Tensor Norm(const at::Tensor& x, const NormWeights& norm) const;
  // [tokens, heads, head_dim] with norm, where there is one, and rotary positions.
  at::Tensor PrepareHeads(const at::Tensor& heads, const at::Tensor& norm, const Plan& plan) const;
  // [tokens, query_columns]
  at::Tensor Attention(int64_t layer, const at::Tensor& x, absl::Span<const TextRow> rows,
                       const Plan& plan, KvCache& cache) const;
  // One row's query [tokens, heads, head_dim] against its cached keys and values.
  at::Tensor Attend(const TextRow& row, const at::Tensor& query, const at::Tensor& keys,
                    const at::Tensor& values) const;
  at::Tensor Mlp(const DecoderLayerWeights& layer, const at::Tensor& x) const;

  const DecoderConfig config_;
  std::vector<DecoderLayerWeights> layers_;
  DecoderOuterWeights outer_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_DECODER_ATEN_H_
