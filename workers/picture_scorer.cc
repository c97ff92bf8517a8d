#include "workers/picture_scorer.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/batcher/non_finite.h"
#include "workers/checkpoint/status_macros.h"

namespace hanmo {

absl::StatusOr<PictureScorer> PictureScorer::Load(const PipelineOptions& options,
                                                  const nlohmann::json& model_index,
                                                  LoadedModel* loaded) {
  PictureScorer scorer;
  scorer.dtype_ = DtypeName(options.dtype);
  const std::string class_name = RerankerClass(model_index);
  if (class_name.empty()) return scorer;
  HANMO_ASSIGN_OR_RETURN(
      scorer.reranker_,
      Reranker::Load(options.folder + "/reranker", class_name,
                     {options.dtype, options.device->device(), ""}, {options.deterministic}));
  loaded->weight_bytes += scorer.reranker_->weight_bytes();
  loaded->has_reranker = true;
  return scorer;
}

absl::Status PictureScorer::CheckPrompt(const std::vector<uint32_t>& score_prompt) const {
  if (score_prompt.empty()) return absl::OkStatus();
  if (reranker_ != nullptr) return reranker_->CheckPrompt(score_prompt);
  return absl::InvalidArgumentError("score_prompt: the model has no reranker");
}

absl::Status PictureScorer::WarmUp() {
  if (reranker_ == nullptr) return absl::OkStatus();
  const std::vector<uint32_t> prompt = {0};
  const at::Tensor blank = at::zeros({1, 8, 8, 3}, at::kByte);
  if (std::isfinite(reranker_->Score({&prompt}, blank)[0])) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("reranker: scores NaN or Inf in ", dtype_, "; try another dtype"));
}

void PictureScorer::Score(absl::Span<const Row> rows, const at::Tensor& rgb) {
  std::vector<const std::vector<uint32_t>*> prompts;
  std::vector<at::Tensor> pictures;
  std::vector<RowResult*> results;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].score_prompt->empty() || !rows[i].result->status.ok()) continue;
    prompts.push_back(rows[i].score_prompt);
    pictures.push_back(rgb[static_cast<int64_t>(i)]);
    results.push_back(rows[i].result);
  }
  if (prompts.empty()) return;
  const std::vector<float> scores = reranker_->Score(prompts, at::stack(pictures));
  for (size_t i = 0; i < scores.size(); ++i) {
    results[i]->score = scores[i];
    if (std::isfinite(scores[i])) continue;
    results[i]->status = absl::InternalError(absl::StrCat(kNonFinite, "the score has NaN or Inf"));
  }
}

}  // namespace hanmo
