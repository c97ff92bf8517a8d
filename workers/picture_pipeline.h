// Pictures: a published folder with model_index.json (StableDiffusionPipeline: Taiyi and Stable
// Diffusion 1.x), its text encoder, UNet, VAE, scheduler and reranker, and the pictures being
// painted.
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
#include "workers/latent_preview.h"
#include "workers/models/reranker.h"
#include "workers/models/text_encoder.h"
#include "workers/models/unet.h"
#include "workers/models/vae.h"
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
  absl::Status ReadScheduler(const std::string& component);
  void DescribeCapabilities(const nlohmann::json& unet_config);
  absl::StatusOr<Picture> MakePicture(PictureJob job, const Resume& resume) const;
  absl::Status CheckPrompt(const std::vector<uint32_t>& prompt, const char* name) const;
  absl::Status CheckScorePrompt(const std::vector<uint32_t>& prompt) const;

  absl::Status EncodeText(const std::vector<Rider>& riders);
  absl::Status Denoise(const std::vector<Rider>& riders);
  absl::Status Decode(const std::vector<Rider>& riders);
  // Scores those of the decoded pictures, rgb [n, h, w, 3] uint8 by rider, that ask for it.
  void Score(const std::vector<Rider>& riders, const at::Tensor& rgb);
  Pixels Preview(const Picture& picture) const;

  const PipelineOptions options_;
  LoadedModel loaded_;
  nlohmann::json scheduler_config_;
  std::string scheduler_class_;
  std::unique_ptr<TextEncoder> text_encoder_;
  std::unique_ptr<Unet> unet_;
  std::unique_ptr<Vae> vae_;
  std::unique_ptr<Reranker> reranker_;  // null: the folder has none
  std::optional<LatentPreview> preview_;
  std::map<SampleHandle, std::shared_ptr<Picture>> pictures_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_PICTURE_PIPELINE_H_
