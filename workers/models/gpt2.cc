#include "workers/models/gpt2.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/models/gpt2_aten.h"
#include "workers/models/gpt2_cpu.h"

namespace hanmo {
namespace {

// Of the serving type; the mask buffers of old files hold no weight.
int64_t WeightBytes(const Gpt2Config& config, at::ScalarType dtype) {
  const int64_t width = config.n_embd, inner = config.n_inner;
  const int64_t layer = 4 * width * width + 2 * width * inner + 9 * width + inner;
  const int64_t embeddings = (config.vocab_size + config.n_positions + 2) * width;
  const int64_t head = config.tie_word_embeddings ? 0 : config.vocab_size * width;
  return (config.n_layer * layer + embeddings + head) *
         static_cast<int64_t>(c10::elementSize(dtype));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Gpt2>> Gpt2::Load(Checkpoint& checkpoint, Gpt2Options options) {
  HANMO_ASSIGN_OR_RETURN(const Gpt2Config config, ParseGpt2Config(checkpoint.config()));
  HANMO_RETURN_IF_ERROR(checkpoint.Rename([&](absl::string_view name) {
    // A copy of the tied embedding, which .bin files repeat.
    if (name == "lm_head.weight" && config.tie_word_embeddings) return std::string();
    return std::string(absl::StripPrefix(name, "transformer."));
  }));
  const WeightScope weights(checkpoint);
  const int64_t bytes = WeightBytes(config, checkpoint.options().dtype);
  std::unique_ptr<Gpt2> model;
  if (options.force_aten || !checkpoint.options().device.is_cpu()) {
    model = std::make_unique<Gpt2Aten>(config, weights, bytes);
  } else {
    model = std::make_unique<Gpt2Cpu>(config, weights, bytes, options.isa.value_or(BestIsa()));
  }
  if (!weights.status().ok()) return weights.status();
  return model;
}

absl::Status Gpt2::CheckRow(const Gpt2Row& row, const Gpt2Cache& cache) const {
  const auto count = static_cast<int64_t>(row.tokens.size());
  if (count == 0) return absl::InvalidArgumentError("tokens must not be empty");
  if (row.start < 0 || row.start > config_.n_positions - count) {
    return absl::InvalidArgumentError(absl::StrCat("positions ", row.start, " to ",
                                                   row.start + count - 1, " are not within 0 to ",
                                                   config_.n_positions - 1));
  }
  for (const int32_t token : row.tokens) {
    if (token < 0 || token >= config_.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", token, " is not within 0 to ", config_.vocab_size - 1));
    }
  }
  const int64_t pages = (row.start + count + kPageTokens - 1) / kPageTokens;
  if (static_cast<int64_t>(row.page_table.size()) < pages) {
    return absl::InvalidArgumentError(absl::StrCat("the page table has ", row.page_table.size(),
                                                   " pages, ", pages, " are needed"));
  }
  for (const int32_t page : row.page_table.first(pages)) {
    if (page < 0 || page >= cache.pages) {
      return absl::InvalidArgumentError(
          absl::StrCat("page ", page, " is not within 0 to ", cache.pages - 1));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Gpt2Logits> Gpt2::Run(absl::Span<const Gpt2Row> rows, Gpt2Cache& cache) const {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (absl::Status status = CheckRow(rows[i], cache); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("row ", i, ": ", status.message()));
    }
  }
  if (rows.empty()) return Gpt2Logits{at::empty({0, config_.vocab_size}, at::kFloat), {0}};
  return Forward(rows, cache);
}

std::vector<int64_t> Gpt2::LogitTokens(absl::Span<const Gpt2Row> rows,
                                       std::vector<int64_t>& first) {
  std::vector<int64_t> wanted;
  first.assign(1, 0);
  int64_t token = 0;
  for (const Gpt2Row& row : rows) {
    const auto count = static_cast<int64_t>(row.tokens.size());
    const int64_t begin = row.logits == LogitsOf::kAllTokens   ? 0
                          : row.logits == LogitsOf::kLastToken ? count - 1
                                                               : count;
    for (int64_t i = begin; i < count; ++i) wanted.push_back(token + i);
    token += count;
    first.push_back(static_cast<int64_t>(wanted.size()));
  }
  return wanted;
}

}  // namespace hanmo
