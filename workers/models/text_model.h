// Text models: token ids in, logits out, for a continuous batch over a paged KV cache. The batcher
// owns the pages: which sample has which page ids is told with every row.
#ifndef HANMO_WORKERS_MODELS_TEXT_MODEL_H_
#define HANMO_WORKERS_MODELS_TEXT_MODEL_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/kernels/cpu_isa.h"

namespace hanmo {

// One preallocated pair of tensors per layer. A page holds kPageTokens slots of all heads of one
// sample; keys lie transposed in it, [page, kv head, head_dim, token], so that a query meets the
// tokens of a page side by side; values are [page, kv head, token, padded head_dim].
struct KvCache {
  std::vector<at::Tensor> keys;
  std::vector<at::Tensor> values;
  int64_t pages = 0;
};

enum class LogitsOf { kNone, kLastToken, kAllTokens };

// A run of tokens of one sample: a prefill chunk, or the one token of a decode step.
struct TextRow {
  absl::Span<const int32_t> tokens;      // at least one, each in [0, vocab_size)
  int64_t start = 0;                     // position of tokens[0]; positions before it are cached
  absl::Span<const int32_t> page_table;  // pages of positions 0–15, 16–31 …, up to the last token
  LogitsOf logits = LogitsOf::kLastToken;
};

struct TextLogits {
  // float32 on the CPU, [logit rows, vocab_size]; each row is contiguous, rows may be padded apart.
  at::Tensor values;
  // Row i of the batch owns logit rows [first[i], first[i + 1]).
  std::vector<int64_t> first;

  // Of one logit row; may be written.
  absl::Span<float> Row(int64_t row) const {
    return {values.data_ptr<float>() + row * values.stride(0), static_cast<size_t>(values.size(1))};
  }
};

struct TextModelOptions {
  // Runs on ATen operators as on a GPU, also on the CPU: for tests and comparisons. Its logits are
  // equal to rounding, not to the bit, between batches.
  bool force_aten = false;
  // Of SupportedIsas(); the best one when absent.
  std::optional<CpuIsa> isa;
};

struct TextModelShape {
  std::string architecture;  // transformers' class, as in config.json's "architectures"
  int64_t vocab_size = 0;
  int64_t context_tokens = 0;  // positions that the model knows
};

// On the CPU a row's logits are equal to the bit whatever else is in the batch, however its prefill
// was cut into chunks, and wherever its pages lie. Use from one thread; operators run on ATen's
// intra-op threads.
class TextModel {
 public:
  static constexpr int64_t kPageTokens = 16;

  // The network that config.json's "model_type" names. Weights in the checkpoint's serving type on
  // its device. INVALID_ARGUMENT or NOT_FOUND name the field or tensor.
  static absl::StatusOr<std::unique_ptr<TextModel>> Load(Checkpoint& checkpoint,
                                                         TextModelOptions options = {});
  virtual ~TextModel() = default;

  const TextModelShape& shape() const { return shape_; }
  int64_t weight_bytes() const { return weight_bytes_; }
  // Of one page in all layers together, keys and values.
  virtual int64_t page_bytes() const = 0;
  // On the CPU a page takes no memory before it is first written.
  virtual KvCache MakeCache(int64_t pages) const = 0;

  // Runs all rows in one batch and writes their keys and values into the cache. INVALID_ARGUMENT,
  // before anything is written, names the row whose tokens, positions or pages are out of range;
  // two rows must not share a page that either of them writes.
  absl::StatusOr<TextLogits> Run(absl::Span<const TextRow> rows, KvCache& cache) const;

 protected:
  explicit TextModel(TextModelShape shape) : shape_(std::move(shape)) {}

  // The tokens whose logits are asked for, counted through all rows; fills TextLogits::first.
  static std::vector<int64_t> LogitTokens(absl::Span<const TextRow> rows,
                                          std::vector<int64_t>& first);
  virtual absl::Status CheckRow(const TextRow& row, const KvCache& cache) const;
  virtual TextLogits Forward(absl::Span<const TextRow> rows, KvCache& cache) const = 0;

 private:
  const TextModelShape shape_;
  int64_t weight_bytes_ = 0;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_TEXT_MODEL_H_
