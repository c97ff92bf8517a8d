// Pictures painted token by token from texts, and texts written about pictures: an ERNIE-ViLG
// folder (docs/ernie-vilg.md) and what is being painted and written. Both kinds share every step
// over the paged KV cache.
#ifndef HANMO_WORKERS_ERNIE_VILG_PIPELINE_H_
#define HANMO_WORKERS_ERNIE_VILG_PIPELINE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "workers/models/text_model.h"
#include "workers/picture_scorer.h"
#include "workers/pipeline.h"

namespace hanmo {

class ErnieVilg;
class Vqgan;
struct VilgRow;

// The "_class_name" of its model_index.json.
inline constexpr char kErnieVilgPipeline[] = "ErnieViLGPipeline";

class ErnieVilgPipeline final : public Pipeline {
 public:
  // INVALID_ARGUMENT or NOT_FOUND name the file, key or tensor at fault; RESOURCE_EXHAUSTED when
  // the KV pages of one picture don't fit.
  static absl::StatusOr<std::unique_ptr<ErnieVilgPipeline>> Load(const PipelineOptions& options);

  ~ErnieVilgPipeline() override;

  const LoadedModel& loaded() const override { return loaded_; }
  absl::Status WarmUp() override;
  void Begin(SampleHandle sample, SampleJob job, Resume resume) override;
  absl::Status Run(const Step& step, std::vector<RowResult>* rows) override;
  // A sample's state is its tokens, which the server has.
  std::optional<SavePoint> Save(SampleHandle) override { return std::nullopt; }
  void Drop(SampleHandle sample) override { samples_.erase(sample); }

 private:
  // A picture being painted or a text being written. Its KV pages belong to the batcher.
  struct Sample {
    TextJob job;
    absl::Status invalid;             // why it can't be done; reported by its first step
    std::vector<int32_t> tokens;      // source, padding, and the target so far
    std::vector<uint32_t> generated;  // of the target, in ids of words, or codes where it paints
    size_t cached = 0;                // of the tokens, in the KV cache
    std::vector<int32_t> pages;
    bool awaits_picture = false;  // the ids of its source are placeholders
    bool ended = false;           // by a stop id or max_tokens

    VilgRow NextRow(size_t count) const;
  };
  // A row of the step under way with its sample, which lives until the step's end even if it is
  // dropped at a yield point; rows that failed or are skipped are left out.
  struct Rider {
    std::shared_ptr<Sample> sample;
    RowResult* result;
    const Row* row;
    size_t first_page = 0;  // pages of the table before the step's new ones
    size_t count = 0;       // kText: known tokens to run
  };

  explicit ErnieVilgPipeline(const PipelineOptions& options);

  absl::Status LoadComponents();
  absl::StatusOr<Sample> MakeSample(TextJob job, const Resume& resume) const;
  absl::Status CheckJob(const TextJob& job, size_t target_begin) const;
  absl::Status CheckPicture(const TextJob& job) const;
  absl::Status CheckResume(const TextJob& job, const Resume& resume) const;
  // Pixels of a picture.
  uint32_t width() const;
  uint32_t height() const;

  // kText: takes the row's pages; skips a sample that ended.
  absl::Status Board(Rider& rider) const;
  absl::Status RunText(std::vector<Rider>& riders);
  absl::Status EncodePictures(const std::vector<Rider>& riders) const;
  // Scores those that ask for it, too.
  absl::Status DecodePictures(const std::vector<Rider>& riders);
  // Draws the sample's next token. `logits` is overwritten.
  absl::Status SampleNext(Sample& sample, absl::Span<float> logits, RowResult* result) const;

  const PipelineOptions options_;
  LoadedModel loaded_;
  std::unique_ptr<ErnieVilg> model_;
  std::unique_ptr<Vqgan> vqgan_;
  PictureScorer scorer_;
  KvCache cache_;
  std::map<SampleHandle, std::shared_ptr<Sample>> samples_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_ERNIE_VILG_PIPELINE_H_
