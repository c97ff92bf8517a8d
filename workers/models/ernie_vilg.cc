#include "workers/models/ernie_vilg.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/models/ernie_vilg_aten.h"
#include "workers/models/ernie_vilg_cpu.h"
#include "workers/models/ernie_vilg_slots.h"

namespace hanmo {

absl::StatusOr<std::unique_ptr<ErnieVilg>> ErnieVilg::Load(Checkpoint& checkpoint,
                                                           TextModelOptions options) {
  HANMO_ASSIGN_OR_RETURN(const ErnieVilgConfig config,
                         ErnieVilgConfig::FromJson(checkpoint.config()));
  HANMO_RETURN_IF_ERROR(checkpoint.Rename([&](absl::string_view name) {
    // A copy of the tied word embedding.
    const bool copy = config.tied_head && name == "lm_head.decoder.weight";
    return copy ? std::string() : std::string(name);
  }));
  const WeightScope weights(checkpoint);
  std::unique_ptr<ErnieVilg> model;
  if (options.force_aten || !checkpoint.options().device.is_cpu()) {
    model = std::make_unique<ErnieVilgAten>(config, weights);
  } else {
    model = std::make_unique<ErnieVilgCpu>(config, weights, options.isa.value_or(BestIsa()));
  }
  HANMO_RETURN_IF_ERROR(weights.status());
  model->weight_bytes_ = static_cast<int64_t>(checkpoint.taken_bytes());
  return model;
}

int64_t ErnieVilg::context_tokens() const {
  const int64_t painting = ErnieVilgSlots(config_, config_.text_tokens, true).positions();
  const int64_t writing = ErnieVilgSlots(config_, config_.picture_tokens(), false).positions();
  return 1 + std::max(painting, writing);  // the last token is never run
}

absl::Status ErnieVilg::CheckRow(const VilgRow& row, const KvCache& cache) const {
  const auto count = static_cast<int64_t>(row.tokens.size());
  if (count == 0) return absl::InvalidArgumentError("tokens must not be empty");
  const int64_t most = row.paints ? config_.text_tokens : config_.picture_tokens();
  if (row.source_tokens < (row.paints ? 1 : most) || row.source_tokens > most) {
    return absl::InvalidArgumentError(absl::StrCat("a source of ", row.source_tokens, " tokens, ",
                                                   row.paints ? "1 to " : "", most, " expected"));
  }
  const ErnieVilgSlots slots(config_, row.source_tokens, row.paints);
  const int64_t end = row.start + count;
  if (row.start < 0 || end > slots.positions()) {
    return absl::InvalidArgumentError(absl::StrCat("positions ", row.start, " to ", end - 1,
                                                   " are not within 0 to ", slots.positions() - 1));
  }
  if (row.start == 0 ? end < row.source_tokens : row.start < slots.target_begin()) {
    return absl::InvalidArgumentError(absl::StrCat("positions ", row.start, " to ", end - 1,
                                                   " cut the source of ", row.source_tokens,
                                                   " tokens, which is run whole"));
  }
  const int64_t pages = (slots.SlotsUpTo(end) + kPageTokens - 1) / kPageTokens;
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
  return CheckTokens(row);
}

absl::Status ErnieVilg::CheckTokens(const VilgRow& row) const {
  const ErnieVilgSlots slots(config_, row.source_tokens, row.paints);
  for (size_t i = 0; i < row.tokens.size(); ++i) {
    const int64_t position = row.start + static_cast<int64_t>(i);
    if (slots.IsPadding(position)) continue;
    const bool picture = slots.PictureToken(position) >= 0;
    int64_t first = picture ? config_.text_vocabulary : 0;
    int64_t last = (picture ? config_.vocabulary() : config_.text_vocabulary) - 1;
    if (position == slots.target_begin()) {
      first = last = row.paints ? config_.begin_picture : config_.begin_text;
    }
    if (row.tokens[i] >= first && row.tokens[i] <= last) continue;
    return absl::InvalidArgumentError(absl::StrCat("token id ", row.tokens[i], " at position ",
                                                   position, " is not within ", first, " to ",
                                                   last));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<at::Tensor>> ErnieVilg::Run(absl::Span<const VilgRow> rows,
                                                       KvCache& cache) const {
  for (size_t i = 0; i < rows.size(); ++i) {
    if (absl::Status status = CheckRow(rows[i], cache); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("row ", i, ": ", status.message()));
    }
  }
  if (rows.empty()) return std::vector<at::Tensor>();
  return Forward(rows, cache);
}

}  // namespace hanmo
