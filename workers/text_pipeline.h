// Texts: a published folder of a text model (text_model.h) and the texts being written. Every step
// takes prefill chunks and decode tokens in one batch over the paged KV cache.
#ifndef HANMO_WORKERS_TEXT_PIPELINE_H_
#define HANMO_WORKERS_TEXT_PIPELINE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "workers/models/text_model.h"
#include "workers/models/token_drafter.h"
#include "workers/pipeline.h"
#include "workers/text_guide.h"

namespace hanmo {

class TextPipeline final : public Pipeline {
 public:
  // INVALID_ARGUMENT or NOT_FOUND name the file, key or tensor at fault; RESOURCE_EXHAUSTED when
  // the KV pages of one full context don't fit.
  static absl::StatusOr<std::unique_ptr<TextPipeline>> Load(const PipelineOptions& options);

  const LoadedModel& loaded() const override { return loaded_; }
  absl::Status WarmUp() override;
  void Begin(SampleHandle sample, SampleJob job, Resume resume) override;
  absl::Status Run(const Step& step, std::vector<RowResult>* rows) override;
  // A text's state is its tokens, which the server has.
  std::optional<SavePoint> Save(SampleHandle) override { return std::nullopt; }
  void Drop(SampleHandle sample) override { texts_.erase(sample); }

 private:
  // One text being written. Its KV pages belong to the batcher; dropping it frees nothing here.
  struct Text {
    TextJob job;
    absl::Status invalid;              // why it can't be written; reported by its first step
    std::vector<uint32_t> ending_ids;  // end-of-text and stop ids, impossible before min_tokens
    std::vector<uint32_t> tokens;      // prompt, emitted before, and sampled here
    size_t cached = 0;                 // of them, in the KV cache
    std::vector<int32_t> pages;
    TokenDrafter drafter;
    std::unique_ptr<TextGuide> guide;  // null: the text is free
    bool ended = false;                // by a stop id or max_tokens

    absl::Span<const uint32_t> generated() const {
      return absl::MakeConstSpan(tokens).subspan(job.prompt.size());
    }
  };
  // A row of the step under way; rows that failed or are skipped are left out.
  struct Rider {
    Text* text;
    RowResult* result;
    size_t first_page;            // pages of the table before the step's new ones
    size_t count;                 // known tokens to run
    std::vector<int32_t> tokens;  // these, and guesses at what follows
    bool samples() const { return text->cached + count == text->tokens.size(); }
  };

  explicit TextPipeline(const PipelineOptions& options) : options_(options) {}

  absl::Status MakeCache();
  absl::StatusOr<Text> MakeText(TextJob job, const Resume& resume) const;
  // `positions`: known tokens that the step runs in all.
  absl::StatusOr<Rider> Board(const Row& row, size_t positions, RowResult* result);
  void Draft(const Row& row, size_t positions, Rider& rider) const;
  absl::Status Forward(std::vector<Rider>& riders);
  // Draws the rider's next token, and more while its guesses come true. From `first` on `logits`
  // has one row for its last known token and one for each guess; what is used is overwritten.
  // Different riders may be drawn for at the same time.
  static void SampleNext(Rider& rider, const TextLogits& logits, int64_t first);
  // `logits` is overwritten.
  static absl::Status SampleOne(Text& text, absl::Span<float> logits, RowResult* result);

  const PipelineOptions options_;
  std::shared_ptr<const BackgroundGuideVocabulary> guides_;  // set when it is loaded
  LoadedModel loaded_;
  std::unique_ptr<TextModel> model_;
  KvCache cache_;
  std::map<SampleHandle, Text> texts_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_TEXT_PIPELINE_H_
