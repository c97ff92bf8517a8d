// GPT-2 on ATen operators, for GPUs. On the CPU it is what gpt2_cpu.h is compared with.
#ifndef HANMO_WORKERS_MODELS_GPT2_ATEN_H_
#define HANMO_WORKERS_MODELS_GPT2_ATEN_H_

#include <cstdint>
#include <vector>

#include "workers/models/gpt2.h"
#include "workers/models/gpt2_weights.h"

namespace hanmo {

class Gpt2Aten : public Gpt2 {
 public:
  // Errors go to weights.status(); the object is usable only when that is OK.
  Gpt2Aten(const Gpt2Config& config, const WeightScope& weights, int64_t weight_bytes);

  int64_t page_bytes() const override;
  Gpt2Cache MakeCache(int64_t pages) const override;

 protected:
  Gpt2Logits Forward(absl::Span<const Gpt2Row> rows, Gpt2Cache& cache) const override;

 private:
  // Where the tokens of a batch go, on the device: ids, positions, page and slot of each.
  struct Plan {
    at::Tensor tokens, positions, pages, slots;
    std::vector<at::Tensor> tables;  // page ids of each row
  };
  Plan MakePlan(absl::Span<const Gpt2Row> rows) const;
  at::Tensor Norm(const at::Tensor& x, const Gpt2Norm& norm) const;
  at::Tensor Activate(const at::Tensor& x) const;
  // One row's query [tokens, n_embd] against its cached keys and values.
  at::Tensor Attend(const Gpt2Row& row, const at::Tensor& query, const at::Tensor& keys,
                    const at::Tensor& values) const;

  std::vector<Gpt2LayerWeights> layers_;
  Gpt2OuterWeights outer_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_GPT2_ATEN_H_
