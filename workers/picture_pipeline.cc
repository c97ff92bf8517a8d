#include "workers/picture_pipeline.h"

#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/batcher/non_finite.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/samplers/guidance.h"

namespace hanmo {
namespace {

at::Tensor Ids(const std::vector<uint32_t>& prompt) {
  std::vector<int64_t> ids(prompt.begin(), prompt.end());
  return at::tensor(ids, at::kLong).unsqueeze(0);
}

absl::Status NonFinite(std::string_view what) {
  return absl::InternalError(absl::StrCat(kNonFinite, std::string(what), " has NaN or Inf"));
}

bool IsFinite(const at::Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

// The step's rows run as one batch: they must have one size and one prompt length. The batcher sees
// to it; another sender learns what is wrong.
absl::Status CheckOneShape(const std::vector<at::Tensor>& tensors, std::string_view what) {
  for (const at::Tensor& tensor : tensors) {
    if (tensor.sizes().slice(1) != tensors[0].sizes().slice(1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("step.rows: ", std::string(what), " of different sizes in one step"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<PicturePipeline::Picture> PicturePipeline::MakePicture(PictureJob job,
                                                                      const Resume& resume) const {
  Picture picture;
  const uint32_t factor = loaded_.latent_factor;
  if (job.width == 0 || job.height == 0 || job.width % factor != 0 || job.height % factor != 0) {
    return absl::InvalidArgumentError(absl::StrCat("size: ", job.width, " x ", job.height,
                                                   ", multiples of ", factor, " expected"));
  }
  if (!std::isfinite(job.guidance)) return absl::InvalidArgumentError("guidance: not finite");
  HANMO_RETURN_IF_ERROR(CheckPrompt(job.prompt, "prompt"));
  if (job.guidance > 1) {
    HANMO_RETURN_IF_ERROR(CheckPrompt(job.negative_prompt, "negative_prompt"));
    if (job.negative_prompt.size() != job.prompt.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("negative_prompt: ", job.negative_prompt.size(), " tokens, the prompt's ",
                       job.prompt.size(), " expected"));
    }
  }
  HANMO_RETURN_IF_ERROR(scorer_.CheckPrompt(job.score_prompt));
  SamplerRequest request;
  request.scheduler_config = scheduler_config_;
  request.default_class = scheduler_class_;
  request.sampler = job.sampler;
  request.steps = static_cast<int>(std::min<uint32_t>(job.steps, 1'000'000));
  HANMO_ASSIGN_OR_RETURN(picture.sampler, Sampler::Create(request));
  const LatentShape shape = {loaded_.latent_channels, job.height / factor, job.width / factor};
  const at::Device device = options_.device->device();
  if (resume.save_point.empty()) {
    picture.state = picture.sampler->Begin(job.seed, shape, device);
  } else {
    HANMO_ASSIGN_OR_RETURN(picture.state,
                           picture.sampler->Restore(resume.save_point, shape, device));
  }
  picture.job = std::move(job);
  return picture;
}

absl::Status PicturePipeline::CheckPrompt(const std::vector<uint32_t>& prompt,
                                          const char* name) const {
  const TextEncoderTraits& traits = text_encoder_->traits();
  if (prompt.empty() || static_cast<int64_t>(prompt.size()) > traits.max_length) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": ", prompt.size(), " tokens, 1 to ", traits.max_length, " expected"));
  }
  const uint32_t largest = *std::max_element(prompt.begin(), prompt.end());
  if (largest < traits.vocabulary) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(name, ": token ", largest, ", below ", traits.vocabulary, " expected"));
}

void PicturePipeline::Begin(SampleHandle sample, SampleJob job, Resume resume) {
  auto* picture_job = std::get_if<PictureJob>(&job);
  absl::StatusOr<Picture> picture =
      picture_job == nullptr
          ? absl::InvalidArgumentError("this model paints pictures, it writes no text")
          : MakePicture(std::move(*picture_job), resume);
  pictures_[sample] = std::make_shared<Picture>();
  if (picture.ok()) {
    *pictures_[sample] = *std::move(picture);
  } else {
    pictures_[sample]->invalid = picture.status();
  }
}

absl::Status PicturePipeline::Run(const Step& step, std::vector<RowResult>* rows) {
  rows->resize(step.rows.size());
  waited_ = absl::ZeroDuration();
  std::vector<Rider> riders;
  for (size_t i = 0; i < step.rows.size(); ++i) {
    RowResult& result = (*rows)[i];
    result.sample = step.rows[i].sample;
    auto found = pictures_.find(result.sample);
    if (found == pictures_.end()) {
      result.status = absl::NotFoundError(absl::StrCat("sample ", result.sample, " is unknown"));
      continue;
    }
    const std::shared_ptr<Picture>& picture = found->second;
    result.status = picture->invalid;
    if (!result.status.ok()) continue;
    if (step.kind == StepKind::kDenoise) {
      result.skipped = picture->sampler->done(picture->state);
      if (!picture->text.defined()) {
        result.status = absl::FailedPreconditionError("the prompt is not encoded yet");
      }
    }
    if (result.status.ok() && !result.skipped) riders.push_back({picture, &result, &step.rows[i]});
  }
  absl::Status status;
  if (!riders.empty()) {
    switch (step.kind) {
      case StepKind::kTextEncode:
        status = EncodeText(riders);
        break;
      case StepKind::kDenoise:
        status = Denoise(riders);
        break;
      case StepKind::kVaeDecode:
        status = Decode(riders);
        break;
      case StepKind::kText:
      case StepKind::kPictureEncode:
        status = absl::InvalidArgumentError("step.kind: a picture model takes no text steps");
    }
  }
  if (!status.ok()) return status;
  for (RowResult& result : *rows) {
    auto found = pictures_.find(result.sample);
    if (found == pictures_.end()) {
      // Unknown from the start, or dropped at a yield point.
      if (!result.status.ok()) continue;
      const SampleHandle sample = result.sample;
      result = RowResult();
      result.sample = sample;
      result.status = absl::NotFoundError("dropped while its step was suspended");
      continue;
    }
    if (!result.status.ok()) {
      pictures_.erase(found);
      continue;
    }
    result.steps_done = found->second->state.next_call;
    result.steps_total = found->second->sampler->model_calls();
  }
  return absl::OkStatus();
}

absl::Status PicturePipeline::EncodeText(const std::vector<Rider>& riders) {
  std::vector<at::Tensor> ids;
  for (const Rider& rider : riders) {
    if (rider.picture->guided()) ids.push_back(Ids(rider.picture->job.negative_prompt));
    ids.push_back(Ids(rider.picture->job.prompt));
  }
  HANMO_RETURN_IF_ERROR(CheckOneShape(ids, "prompts"));
  const at::Tensor text = text_encoder_->Encode(at::cat(ids).to(options_.device->device()));
  int64_t next = 0;
  for (const Rider& rider : riders) {
    const int64_t prompts = rider.picture->guided() ? 2 : 1;
    // A copy, so that the embeddings of the batch don't live as long as its last row.
    rider.picture->text = text.narrow(0, next, prompts).clone();
    if (!IsFinite(rider.picture->text)) rider.result->status = NonFinite("the prompt embedding");
    rider.result->variants = Variants(*rider.picture);
    next += prompts;
  }
  return absl::OkStatus();
}

std::vector<VariantChange> PicturePipeline::Variants(const Picture& picture) const {
  std::vector<VariantChange> changes;
  if (experts_->ranges().size() == 1) return changes;
  const std::vector<float>& timesteps = picture.sampler->timesteps();
  for (uint32_t call = 0; call < timesteps.size(); ++call) {
    const auto variant = static_cast<uint32_t>(experts_->At(timesteps[call]));
    if (changes.empty() || changes.back().variant != variant) changes.push_back({call, variant});
  }
  return changes;
}

absl::StatusOr<const Unet*> PicturePipeline::ExpertFor(const std::vector<Rider>& riders) {
  const auto expert_of = [&](const Rider& rider) {
    const Picture& picture = *rider.picture;
    return experts_->At(picture.sampler->timesteps()[picture.state.next_call]);
  };
  const size_t expert = expert_of(riders[0]);
  for (const Rider& rider : riders) {
    if (expert_of(rider) != expert) {
      return absl::InvalidArgumentError("step.rows: pictures of different experts in one step");
    }
  }
  return experts_->Use(expert, &waited_);
}

absl::Status PicturePipeline::Denoise(const std::vector<Rider>& riders) {
  std::vector<at::Tensor> latents, text;
  std::vector<float> timesteps;
  for (const Rider& rider : riders) {
    const ModelInput input = rider.picture->sampler->Input(rider.picture->state);
    // A guided picture takes two rows: without and with its prompt.
    const size_t copies = rider.picture->guided() ? 2 : 1;
    latents.insert(latents.end(), copies, input.latent.unsqueeze(0));
    timesteps.insert(timesteps.end(), copies, input.timestep);
    text.push_back(rider.picture->text);
  }
  HANMO_RETURN_IF_ERROR(CheckOneShape(latents, "pictures"));
  HANMO_RETURN_IF_ERROR(CheckOneShape(text, "prompts"));
  HANMO_ASSIGN_OR_RETURN(const Unet* unet, ExpertFor(riders));
  const at::Tensor predictions =
      unet->Forward(at::cat(latents), at::tensor(timesteps).to(options_.device->device()),
                    text.size() == 1 ? text[0] : at::cat(text));
  int64_t next = 0;
  for (const Rider& rider : riders) {
    Picture& picture = *rider.picture;
    at::Tensor prediction = predictions[next++];
    if (picture.guided()) {
      prediction = Guide(prediction, predictions[next++], picture.job.guidance);
    }
    rider.result->status = picture.sampler->Step(prediction, picture.state);
    if (rider.result->status.ok() && !IsFinite(picture.state.latent)) {
      rider.result->status = NonFinite("the latent");
    }
    if (rider.result->status.ok() && rider.row->preview) rider.result->preview = Preview(picture);
  }
  return absl::OkStatus();
}

absl::Status PicturePipeline::Decode(const std::vector<Rider>& riders) {
  std::vector<at::Tensor> latents;
  for (const Rider& rider : riders) latents.push_back(rider.picture->state.latent.unsqueeze(0));
  HANMO_RETURN_IF_ERROR(CheckOneShape(latents, "pictures"));
  const at::Tensor decoded = vae_->Decode(at::cat(latents));
  const at::Tensor rgb = ToRgb8(decoded).contiguous();
  std::vector<PictureScorer::Row> painted;
  for (size_t i = 0; i < riders.size(); ++i) {
    painted.push_back({&riders[i].picture->job.score_prompt, riders[i].result});
    if (!IsFinite(decoded[i])) {
      riders[i].result->status = NonFinite("the picture");
      continue;
    }
    Pixels& pixels = riders[i].result->picture;
    pixels.width = riders[i].picture->job.width;
    pixels.height = riders[i].picture->job.height;
    const auto* bytes = reinterpret_cast<const char*>(rgb[i].data_ptr<uint8_t>());
    pixels.rgb.assign(bytes, rgb[i].numel());
  }
  scorer_.Score(painted, rgb);
  return absl::OkStatus();
}

// The sampler's input has the noise level that the preview was fitted for; some samplers' own
// latents are many times larger at the start.
Pixels PicturePipeline::Preview(const Picture& picture) const {
  const at::Tensor latent = picture.sampler->done(picture.state)
                                ? picture.state.latent
                                : picture.sampler->Input(picture.state).latent;
  return preview_->Render(latent);
}

std::optional<SavePoint> PicturePipeline::Save(SampleHandle sample) {
  auto found = pictures_.find(sample);
  if (found == pictures_.end() || !found->second->invalid.ok()) return std::nullopt;
  const Picture& picture = *found->second;
  return SavePoint{sample, static_cast<uint32_t>(picture.state.next_call),
                   picture.sampler->Save(picture.state)};
}

}  // namespace hanmo
