// Pictures: a published folder with model_index.json (StableDiffusionPipeline: Taiyi and Stable
// Diffusion 1.x; ErnieViLG2Pipeline: ERNIE-ViLG 2.0), its text encoder, UNets, VAE, scheduler and
// reranker, and the pictures being painted.
#ifndef HANMO_WORKERS_PICTURE_PIPELINE_H_
#define HANMO_WORKERS_PICTURE_PIPELINE_H_

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "workers/experts.h"
#include "workers/latent_preview.h"
#include "workers/models/text_encoder.h"
#include "workers/models/vae.h"
#include "workers/picture_scorer.h"
#include "workers/pipeline.h"
#include "workers/samplers/sampler.h"

namespace hanmo {

class PicturePipeline final : public Pipeline {
 public:
  // INVALID_ARGUMENT or NOT_FOUND name the file, key or tensor at fault.
  static absl::StatusOr<std::unique_ptr<PicturePipeline>> Load(const PipelineOptions& options);

  const LoadedModel& loaded() const override { return loaded_; }
  absl::Status WarmUp() override;
  void Begin(SampleHandle sample, SampleJob job, Resume resume) override;
  absl::Status Run(const Step& step, std::vector<RowResult>* rows) override;
  absl::Duration waited() const override { return waited_; }
  std::optional<SavePoint> Save(SampleHandle sample) override;
  void Drop(SampleHandle sample) override { pictures_.erase(sample); }

 private:
  // One picture being painted.
  struct Picture {
    PictureJob job;
    absl::Status invalid;  // why it can't be painted; reported by its first step
    std::shared_ptr<const Sampler> sampler;
    SamplerState state;
    at::Tensor text;  // [1 or 2, length, width], the unconditional prompt first; after kTextEncode
    bool guided() const { return job.guidance > 1; }
  };
  // A row of the step under way with its picture, which lives until the step's end even if it is
  // dropped at a yield point; rows that failed already are left out.
  struct Rider {
    std::shared_ptr<Picture> picture;
    RowResult* result;
    const Row* row;
  };

  explicit PicturePipeline(const PipelineOptions& options) : options_(options) {}

  absl::Status LoadComponents();
  // Returns the number of timesteps that the scheduler was trained with.
  absl::StatusOr<int64_t> ReadScheduler(const std::string& component);
  absl::Status CheckComponents() const;
  void DescribeCapabilities(const nlohmann::json& unet_config);
  absl::StatusOr<Picture> MakePicture(PictureJob job, const Resume& resume) const;
  absl::Status CheckPrompt(const std::vector<uint32_t>& prompt, const char* name) const;

  absl::Status EncodeText(const std::vector<Rider>& riders);
  absl::Status Denoise(const std::vector<Rider>& riders);
  // The network that the pictures need next; INVALID_ARGUMENT when it is not one for all of them.
  absl::StatusOr<const Unet*> ExpertFor(const std::vector<Rider>& riders);
  // Which expert each of the picture's model calls needs.
  std::vector<VariantChange> Variants(const Picture& picture) const;
  absl::Status Decode(const std::vector<Rider>& riders);
  Pixels Preview(const Picture& picture) const;

  const PipelineOptions options_;
  LoadedModel loaded_;
  nlohmann::json scheduler_config_;
  std::string scheduler_class_;
  std::unique_ptr<TextEncoder> text_encoder_;
  std::unique_ptr<Experts> experts_;
  std::unique_ptr<Vae> vae_;
  PictureScorer scorer_;
  std::optional<LatentPreview> preview_;
  std::map<SampleHandle, std::shared_ptr<Picture>> pictures_;
  absl::Duration waited_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_PICTURE_PIPELINE_H_
