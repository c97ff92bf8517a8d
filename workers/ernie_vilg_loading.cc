// The loading half of ErnieVilgPipeline: folders, capabilities, and what samples must be like.
#include <algorithm>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/ernie_vilg_pipeline.h"
#include "workers/kv_pages.h"
#include "workers/model_index.h"
#include "workers/models/ernie_vilg.h"
#include "workers/models/vqgan.h"

namespace hanmo {

ErnieVilgPipeline::ErnieVilgPipeline(const PipelineOptions& options) : options_(options) {}
ErnieVilgPipeline::~ErnieVilgPipeline() = default;

uint32_t ErnieVilgPipeline::width() const {
  return model_->config().columns * vqgan_->traits().factor;
}

uint32_t ErnieVilgPipeline::height() const {
  return model_->config().rows * vqgan_->traits().factor;
}

absl::StatusOr<std::unique_ptr<ErnieVilgPipeline>> ErnieVilgPipeline::Load(
    const PipelineOptions& options) {
  std::unique_ptr<ErnieVilgPipeline> pipeline(new ErnieVilgPipeline(options));
  HANMO_RETURN_IF_ERROR(pipeline->LoadComponents());
  return pipeline;
}

absl::Status ErnieVilgPipeline::LoadComponents() {
  HANMO_ASSIGN_OR_RETURN(const nlohmann::json index,
                         ReadObject(absl::StrCat(options_.folder, "/model_index.json")));
  HANMO_RETURN_IF_ERROR(RequireClass(index, "transformer", "ErnieViLGModel"));
  HANMO_RETURN_IF_ERROR(RequireClass(index, "vqvae", "VQModel"));
  const CheckpointOptions checkpoint_options = {options_.dtype, options_.device->device(), ""};
  const auto open = [&](const char* component) {
    return Checkpoint::Open(absl::StrCat(options_.folder, "/", component), checkpoint_options);
  };
  HANMO_ASSIGN_OR_RETURN(Checkpoint vqvae, open("vqvae"));
  HANMO_ASSIGN_OR_RETURN(vqgan_, Vqgan::Load(vqvae, {options_.deterministic}));
  HANMO_ASSIGN_OR_RETURN(Checkpoint transformer, open("transformer"));
  HANMO_ASSIGN_OR_RETURN(model_, ErnieVilg::Load(transformer));
  const ErnieVilgConfig& config = model_->config();
  if (vqgan_->traits().codes != config.codes) {
    return absl::InvalidArgumentError(
        absl::StrCat("vqvae config.json: num_vq_embeddings: ", vqgan_->traits().codes,
                     ", the transformer's image_vocab_size ", config.codes, " expected"));
  }
  if (vqgan_->traits().picture_channels != 3) {
    return absl::InvalidArgumentError(absl::StrCat(
        "vqvae config.json: in_channels: ", vqgan_->traits().picture_channels, ", 3 expected"));
  }
  HANMO_ASSIGN_OR_RETURN(const int64_t pages,
                         ChooseKvPages(options_, model_->page_bytes(), model_->context_tokens()));
  cache_ = model_->MakeCache(pages);
  loaded_.architecture = kErnieVilgPipeline;
  loaded_.dtype = DtypeName(options_.dtype);
  loaded_.weight_bytes = vqvae.taken_bytes() + transformer.taken_bytes();
  loaded_.context_tokens = model_->context_tokens();
  loaded_.vocabulary_size = config.vocabulary();
  loaded_.page_tokens = kPageTokens;
  loaded_.page_bytes = model_->page_bytes();
  loaded_.pages = pages;
  loaded_.latent_factor = vqgan_->traits().factor;
  loaded_.default_size = std::max(width(), height());
  loaded_.prompt_tokens = config.text_tokens;
  return absl::OkStatus();
}

absl::Status ErnieVilgPipeline::WarmUp() {
  const ErnieVilgConfig& config = model_->config();
  std::vector<int32_t> tokens(kPageTokens + 1, config.pad);
  tokens.back() = config.begin_picture;
  const std::vector<int32_t> pages = {0, 1};
  const VilgRow row = {.tokens = tokens, .source_tokens = 1, .paints = true, .page_table = pages};
  HANMO_ASSIGN_OR_RETURN(const std::vector<at::Tensor> logits, model_->Run({row}, cache_));
  // One token's pixels and back.
  const at::Tensor picture =
      vqgan_->Decode(at::zeros({1, 1, 1}, at::kLong).to(options_.device->device()));
  vqgan_->Encode(picture.clamp(-1, 1));
  for (const auto& [name, result] : {std::pair{"transformer", logits[0]}, {"vqvae", picture}}) {
    // Weights of NaN or of a type too narrow for them show here, not in a request.
    if (at::isfinite(result).all().item<bool>()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": predicts NaN or Inf in ", loaded_.dtype, "; try another dtype"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ErnieVilgPipeline::Sample> ErnieVilgPipeline::MakeSample(
    TextJob job, const Resume& resume) const {
  const ErnieVilgConfig& config = model_->config();
  HANMO_RETURN_IF_ERROR(CheckJob(job, PagesFor(job.source_tokens) * kPageTokens));
  HANMO_RETURN_IF_ERROR(CheckResume(job, resume));
  Sample sample;
  sample.tokens.assign(job.prompt.begin(), job.prompt.end());
  sample.tokens.insert(sample.tokens.end(), resume.emitted.begin(), resume.emitted.end());
  sample.cached = resume.cached_tokens;
  sample.generated = resume.emitted;
  sample.ended = sample.generated.size() == job.max_tokens;
  if (job.paints()) {
    for (uint32_t& code : sample.generated) code -= static_cast<uint32_t>(config.text_vocabulary);
  } else {
    sample.awaits_picture = true;
    for (const int32_t id : {config.cls, config.pad, config.begin_picture, config.begin_text}) {
      job.sampling.logit_bias[id] = -std::numeric_limits<float>::infinity();
    }
  }
  sample.job = std::move(job);
  return sample;
}

absl::Status ErnieVilgPipeline::CheckJob(const TextJob& job, size_t target_begin) const {
  const ErnieVilgConfig& config = model_->config();
  const uint32_t most = job.paints() ? config.text_tokens : config.picture_tokens();
  const uint32_t least = job.paints() ? 1 : most;
  if (job.source_tokens < least || job.source_tokens > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("source_tokens: ", job.source_tokens, ", ", least, " to ", most, " expected"));
  }
  if (job.prompt.size() <= target_begin) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt: ", job.prompt.size(), " tokens, the source, its padding and a token ",
                     "more, ", target_begin + 1, " in all, expected"));
  }
  const uint32_t largest = *std::max_element(job.prompt.begin(), job.prompt.end());
  if (largest >= loaded_.vocabulary_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt: token ", largest, ", below ", loaded_.vocabulary_size, " expected"));
  }
  if (!job.score_prompt.empty()) {
    return absl::InvalidArgumentError("score_prompt: the model has no reranker");
  }
  // Tokens of the target behind the one that begins it.
  const size_t target = job.prompt.size() - target_begin - 1 + job.max_tokens;
  if (!job.paints()) {
    if (job.max_tokens > 0 && target <= static_cast<size_t>(config.text_tokens)) {
      return CheckPicture(job);
    }
    return absl::InvalidArgumentError(absl::StrCat("max_tokens: ", job.max_tokens,
                                                   ", a text of 1 to ", config.text_tokens,
                                                   " tokens expected"));
  }
  if (job.prompt.size() != target_begin + 1 || job.max_tokens != config.picture_tokens()) {
    return absl::InvalidArgumentError(absl::StrCat("max_tokens: ", target, ", a picture's ",
                                                   config.picture_tokens(), " tokens expected"));
  }
  if (job.paint_width == width() && job.paint_height == height()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("size: ", job.paint_width, " x ", job.paint_height,
                                                 ", ", width(), " x ", height(), " expected"));
}

absl::Status ErnieVilgPipeline::CheckPicture(const TextJob& job) const {
  const PictureInput& picture = job.picture;
  const bool fits = picture.width == width() && picture.height == height();
  const size_t bytes = size_t{3} * width() * height();
  if (picture.rgb != nullptr && fits && picture.rgb->size() == bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("picture: ", picture.width, " x ", picture.height,
                                                 ", ", width(), " x ", height(), " expected"));
}

absl::Status ErnieVilgPipeline::CheckResume(const TextJob& job, const Resume& resume) const {
  const ErnieVilgConfig& config = model_->config();
  // A painted picture may still have to be decoded.
  const size_t most = job.paints() ? job.max_tokens : job.max_tokens - 1;
  if (resume.emitted.size() > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("emitted: ", resume.emitted.size(), " tokens, at most ", most, " expected"));
  }
  const uint32_t first = job.paints() ? config.text_vocabulary : 0;
  const uint32_t end = job.paints() ? config.vocabulary() : config.text_vocabulary;
  for (const uint32_t token : resume.emitted) {
    if (token >= first && token < end) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("emitted: token ", token, ", ", first, " to ", end - 1, " expected"));
  }
  const size_t known = job.prompt.size() + resume.emitted.size();
  if (resume.cached_tokens < known && resume.cached_tokens % kPageTokens == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("cached_tokens: ", resume.cached_tokens, ", whole pages of ", kPageTokens,
                   " tokens, below the ", known, " known ones, expected"));
}

}  // namespace hanmo
