#include "workers/models/text_model.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/models/decoder.h"

namespace hanmo {

absl::StatusOr<std::unique_ptr<TextModel>> TextModel::Load(Checkpoint& checkpoint,
                                                           TextModelOptions options) {
  HANMO_ASSIGN_OR_RETURN(std::unique_ptr<TextModel> model, LoadDecoder(checkpoint, options));
  model->weight_bytes_ = static_cast<int64_t>(checkpoint.taken_bytes());
  return model;
}

absl::Status TextModel::CheckRow(const TextRow& row, const KvCache& cache) const {
  const auto count = static_cast<int64_t>(row.tokens.size());
  if (count == 0) return absl::InvalidArgumentError("tokens must not be empty");
  if (row.start < 0 || row.start > shape_.context_tokens - count) {
    return absl::InvalidArgumentError(absl::StrCat("positions ", row.start, " to ",
                                                   row.start + count - 1, " are not within 0 to ",
                                                   shape_.context_tokens - 1));
  }
  for (const int32_t token : row.tokens) {
    if (token < 0 || token >= shape_.vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat("token id ", token, " is not within 0 to ", shape_.vocab_size - 1));
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

absl::StatusOr<TextLogits> TextModel::Run(absl::Span<const TextRow> rows, KvCache& cache) const {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (absl::Status status = CheckRow(rows[i], cache); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("row ", i, ": ", status.message()));
    }
  }
  if (rows.empty()) return TextLogits{at::empty({0, shape_.vocab_size}, at::kFloat), {0}};
  return Forward(rows, cache);
}

std::vector<int64_t> TextModel::LogitTokens(absl::Span<const TextRow> rows,
                                            std::vector<int64_t>& first) {
  std::vector<int64_t> wanted;
  first.assign(1, 0);
  int64_t token = 0;
  for (const TextRow& row : rows) {
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
