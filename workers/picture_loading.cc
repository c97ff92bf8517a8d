// The loading half of PicturePipeline: folders, configs and capabilities.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/model_index.h"
#include "workers/picture_pipeline.h"
#include "workers/samplers/scheduler_config.h"

namespace hanmo {
namespace {

constexpr const char* kSamplers[] = {"ddim",     "pndm", "euler", "euler_a",
                                     "dpmpp_2m", "lcm",  "unipc"};

// diffusers takes UNets saved before its 0.9 for 64 latent pixels wide when they say less.
bool SavedBefore09(const nlohmann::json& unet_config) {
  const auto version = unet_config.find("_diffusers_version");
  if (version == unet_config.end() || !version->is_string()) return false;
  const std::vector<std::string> parts = absl::StrSplit(version->get<std::string>(), '.');
  int major = 0, minor = 0;
  return parts.size() >= 2 && absl::SimpleAtoi(parts[0], &major) &&
         absl::SimpleAtoi(parts[1], &minor) && major == 0 && minor < 9;
}

}  // namespace

absl::StatusOr<std::unique_ptr<PicturePipeline>> PicturePipeline::Load(
    const PipelineOptions& options) {
  std::unique_ptr<PicturePipeline> pipeline(new PicturePipeline(options));
  HANMO_RETURN_IF_ERROR(pipeline->LoadComponents());
  return pipeline;
}

absl::Status PicturePipeline::LoadComponents() {
  HANMO_ASSIGN_OR_RETURN(const nlohmann::json index,
                         ReadObject(absl::StrCat(options_.folder, "/model_index.json")));
  const std::string pipeline_class = index.value("_class_name", nlohmann::json("")).dump();
  for (const char* known : {"StableDiffusionPipeline", "ErnieViLG2Pipeline"}) {
    if (pipeline_class == absl::StrCat("\"", known, "\"")) loaded_.architecture = known;
  }
  if (loaded_.architecture.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model_index.json: _class_name: ", pipeline_class,
                     " found, StableDiffusionPipeline or ErnieViLG2Pipeline expected"));
  }
  HANMO_RETURN_IF_ERROR(RequireClass(index, "unet", "UNet2DConditionModel"));
  HANMO_RETURN_IF_ERROR(RequireClass(index, "vae", "AutoencoderKL"));
  scheduler_class_ = ClassOf(index, "scheduler");
  HANMO_ASSIGN_OR_RETURN(const int64_t train_timesteps, ReadScheduler("scheduler"));
  HANMO_ASSIGN_OR_RETURN(std::vector<ExpertRange> ranges, ReadExpertRanges(index, train_timesteps));

  const CheckpointOptions checkpoint_options = {options_.dtype, options_.device->device(), ""};
  const ModelOptions model_options = {options_.deterministic};
  const auto open = [&](const char* component) {
    return Checkpoint::Open(absl::StrCat(options_.folder, "/", component), checkpoint_options);
  };
  HANMO_ASSIGN_OR_RETURN(Checkpoint text, open("text_encoder"));
  HANMO_ASSIGN_OR_RETURN(text_encoder_, LoadTextEncoder(text, model_options));
  HANMO_ASSIGN_OR_RETURN(experts_, Experts::Load(options_, std::move(ranges)));
  HANMO_ASSIGN_OR_RETURN(Checkpoint vae, open("vae"));
  HANMO_ASSIGN_OR_RETURN(vae_, Vae::Load(vae, model_options));
  loaded_.weight_bytes = text.taken_bytes() + experts_->weight_bytes() + vae.taken_bytes();
  HANMO_ASSIGN_OR_RETURN(scorer_, PictureScorer::Load(options_, index, &loaded_));
  HANMO_RETURN_IF_ERROR(CheckComponents());
  DescribeCapabilities(experts_->config());
  return absl::OkStatus();
}

absl::Status PicturePipeline::CheckComponents() const {
  if (experts_->traits().in_channels != vae_->traits().latent_channels ||
      experts_->traits().out_channels != vae_->traits().latent_channels) {
    return absl::InvalidArgumentError(
        absl::StrCat("unet config.json: in_channels ", experts_->traits().in_channels,
                     " and out_channels ", experts_->traits().out_channels, ", the VAE's ",
                     vae_->traits().latent_channels, " expected"));
  }
  if (experts_->traits().text_width != text_encoder_->traits().width) {
    return absl::InvalidArgumentError(
        absl::StrCat("unet config.json: cross_attention_dim ", experts_->traits().text_width,
                     ", the text encoder's ", text_encoder_->traits().width, " expected"));
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> PicturePipeline::ReadScheduler(const std::string& component) {
  HANMO_ASSIGN_OR_RETURN(
      const std::string text,
      ReadText(absl::StrCat(options_.folder, "/", component, "/scheduler_config.json")));
  HANMO_ASSIGN_OR_RETURN(scheduler_config_, ParseSchedulerConfig(text));
  SamplerRequest request;
  request.scheduler_config = scheduler_config_;
  request.default_class = scheduler_class_;
  request.steps = 1;
  HANMO_ASSIGN_OR_RETURN(const std::shared_ptr<const Sampler> own, Sampler::Create(request));
  loaded_.default_sampler = std::string(SamplerName(own->kind()));
  for (const char* name : kSamplers) {
    request.sampler = name;
    if (Sampler::Create(request).ok()) loaded_.samplers.push_back(name);
  }
  HANMO_ASSIGN_OR_RETURN(const SchedulerConfig config,
                         SchedulerConfigFor(own->kind(), scheduler_config_, true));
  return config.num_train_timesteps;
}

void PicturePipeline::DescribeCapabilities(const nlohmann::json& unet_config) {
  loaded_.dtype = DtypeName(options_.dtype);
  loaded_.latent_factor = vae_->traits().factor;
  loaded_.latent_channels = vae_->traits().latent_channels;
  if (experts_->ranges().size() > 1) {
    for (const ExpertRange& range : experts_->ranges()) {
      loaded_.experts.push_back({range.subfolder, static_cast<uint32_t>(range.t_min),
                                 static_cast<uint32_t>(range.t_max)});
    }
    loaded_.resident_experts = static_cast<uint32_t>(experts_->resident());
  }
  int64_t sample_size = experts_->traits().sample_size;
  if (sample_size < 64 && SavedBefore09(unet_config)) sample_size = 64;
  loaded_.default_size = sample_size * loaded_.latent_factor;
  loaded_.prompt_tokens = text_encoder_->traits().max_length;
  // The tokenizer may pad to less than the encoder could take.
  auto tokenizer = ReadObject(absl::StrCat(options_.folder, "/tokenizer/tokenizer_config.json"));
  if (!tokenizer.ok()) return;
  const auto length = tokenizer->find("model_max_length");
  if (length != tokenizer->end() && length->is_number() && *length >= 1 &&
      *length < loaded_.prompt_tokens) {
    loaded_.prompt_tokens = length->get<uint32_t>();
  }
}

absl::Status PicturePipeline::WarmUp() {
  const int64_t side = 8;
  const at::Device device = options_.device->device();
  preview_.emplace(*vae_, device);
  // Short prompts: long ones would only raise the peak of memory.
  const int64_t tokens = std::min<int64_t>(32, loaded_.prompt_tokens);
  const at::Tensor ids = at::zeros({2, tokens}, at::kLong).to(device);
  const at::Tensor text = text_encoder_->Encode(ids);
  const at::Tensor latents = at::zeros({2, loaded_.latent_channels, side, side}).to(device);
  // Weights of NaN or of a type too narrow for them show here, not in a request.
  for (size_t expert = 0; expert < experts_->resident(); ++expert) {
    const at::Tensor prediction =
        experts_->loaded(expert).Forward(latents, at::full({2}, 1.0f).to(device), text);
    if (at::isfinite(prediction).all().item<bool>()) continue;
    return absl::InvalidArgumentError(absl::StrCat(experts_->ranges()[expert].subfolder,
                                                   ": predicts NaN or Inf in ", loaded_.dtype,
                                                   "; try another dtype"));
  }
  return scorer_.WarmUp();
}

}  // namespace hanmo
