// ERNIE-ViLG 1.0 (docs/ernie-vilg.md): words and picture tokens in, logits of the next one out, in
// both directions, for a continuous batch over a paged KV cache. The batcher owns the pages.
#ifndef HANMO_WORKERS_MODELS_ERNIE_VILG_H_
#define HANMO_WORKERS_MODELS_ERNIE_VILG_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/models/ernie_vilg_config.h"
#include "workers/models/text_model.h"

namespace hanmo {

// A run of tokens of one sample. Positions count the source, its padding to whole pages of 16, the
// token that begins the target, and the target; padding is skipped, whatever its ids.
struct VilgRow {
  absl::Span<const int32_t> tokens;  // at least one; a picture token is text_vocabulary + code
  int64_t start = 0;                 // position of tokens[0]; positions before it are cached
  int64_t source_tokens = 0;         // run in one row, the one that starts at 0
  bool paints = false;               // a picture from a text; else a text about a picture
  // Pages of slots 0–15, 16–31 …; all of a picture's as soon as one of its tokens is painted.
  absl::Span<const int32_t> page_table;
  // kAllTokens: of all but source and padding.
  LogitsOf logits = LogitsOf::kLastToken;
};

// On the CPU a row's logits are equal to the bit whatever else is in the batch, however its target
// was cut into rows, and wherever its pages lie. Use from one thread; operators run on ATen's
// intra-op threads.
class ErnieVilg {
 public:
  // Weights in the checkpoint's serving type on its device. INVALID_ARGUMENT or NOT_FOUND name the
  // field or tensor.
  static absl::StatusOr<std::unique_ptr<ErnieVilg>> Load(Checkpoint& checkpoint,
                                                         TextModelOptions options = {});
  virtual ~ErnieVilg() = default;

  const ErnieVilgConfig& config() const { return config_; }
  int64_t weight_bytes() const { return weight_bytes_; }
  // Positions of the longest sequence of either direction.
  int64_t context_tokens() const;
  virtual int64_t page_bytes() const = 0;
  // On the CPU a page takes no memory before it is first written.
  virtual KvCache MakeCache(int64_t pages) const = 0;

  // Runs all rows in one batch. The result has one tensor per row, float32 on the CPU: where it
  // paints [logits, codes], else [logits, text_vocabulary]; rows of it are contiguous, and it is
  // undefined without logits. INVALID_ARGUMENT, before anything is written, names the row whose
  // tokens, positions or pages are out of range; two rows must not share a page that either writes.
  absl::StatusOr<std::vector<at::Tensor>> Run(absl::Span<const VilgRow> rows, KvCache& cache) const;
  // Why Run would refuse this row.
  absl::Status CheckRow(const VilgRow& row, const KvCache& cache) const;

 protected:
  explicit ErnieVilg(const ErnieVilgConfig& config) : config_(config) {}
  virtual std::vector<at::Tensor> Forward(absl::Span<const VilgRow> rows, KvCache& cache) const = 0;

 private:
  absl::Status CheckTokens(const VilgRow& row) const;

  const ErnieVilgConfig config_;
  int64_t weight_bytes_ = 0;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_ERNIE_VILG_H_
