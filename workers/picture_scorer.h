// How the pipelines of pictures score what they paint: the reranker of their folder, if it has one
// (docs/reranker.md).
#ifndef HANMO_WORKERS_PICTURE_SCORER_H_
#define HANMO_WORKERS_PICTURE_SCORER_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "workers/models/reranker.h"
#include "workers/pipeline.h"

namespace hanmo {

// Use from one thread at a time.
class PictureScorer {
 public:
  // A row of a kVaeDecode step.
  struct Row {
    const std::vector<uint32_t>* score_prompt;  // empty: not to be scored
    RowResult* result;
  };

  // By `model_index`, the model_index.json of the folder; adds to `loaded` what is there.
  // INVALID_ARGUMENT or NOT_FOUND name the file, key or tensor at fault.
  static absl::StatusOr<PictureScorer> Load(const PipelineOptions& options,
                                            const nlohmann::json& model_index, LoadedModel* loaded);

  // Scores nothing.
  PictureScorer() = default;

  // INVALID_ARGUMENT for a prompt that the reranker can't read, and for any where there is none.
  absl::Status CheckPrompt(const std::vector<uint32_t>& score_prompt) const;

  // INVALID_ARGUMENT when the weights predict nothing finite.
  absl::Status WarmUp();

  // Sets the scores of those rows that want one and have not failed; one that is not finite fails
  // its row. Row i's picture is rgb[i] of [n, height, width, 3] uint8 on the CPU.
  void Score(absl::Span<const Row> rows, const at::Tensor& rgb);

 private:
  std::string dtype_;
  std::unique_ptr<Reranker> reranker_;  // null: the folder has none
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_PICTURE_SCORER_H_
