#include "workers/samplers/sampler.h"

#include <ATen/ATen.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/samplers/sampler_kinds.h"
#include "workers/samplers/save_point.h"

namespace hanmo {
namespace {

absl::StatusOr<SamplerKind> KindOf(const SamplerRequest& request) {
  if (!request.sampler.empty()) return SamplerKindFromName(request.sampler);
  if (!request.default_class.empty()) return SamplerKindFromClass(request.default_class);
  const auto name = request.scheduler_config.find("_class_name");
  if (name == request.scheduler_config.end() || !name->is_string()) {
    return absl::InvalidArgumentError("scheduler_config.json: _class_name must name a scheduler");
  }
  return SamplerKindFromClass(name->get_ref<const std::string&>());
}

NewSampler NewOfKind(const SchedulerConfig& config, int steps) {
  switch (config.kind) {
    case SamplerKind::kDdim:
      return NewDdim(config, steps);
    case SamplerKind::kPndm:
      return NewPndm(config, steps);
    case SamplerKind::kEuler:
    case SamplerKind::kEulerAncestral:
      return NewEuler(config, steps);
    case SamplerKind::kDpmSolver2M:
      return NewDpmSolver(config, steps);
    case SamplerKind::kLcm:
      return NewLcm(config, steps);
    case SamplerKind::kUniPc:
      return NewUniPc(config, steps);
  }
  return absl::InternalError("unknown sampler kind");
}

}  // namespace

absl::StatusOr<std::shared_ptr<const Sampler>> Sampler::Create(const SamplerRequest& request) {
  if (!request.scheduler_config.is_object()) {
    return absl::InvalidArgumentError("scheduler_config.json must be a JSON object");
  }
  const absl::StatusOr<SamplerKind> kind = KindOf(request);
  if (!kind.ok()) return kind.status();
  const absl::StatusOr<SchedulerConfig> config =
      SchedulerConfigFor(*kind, request.scheduler_config, request.latent_pipeline);
  if (!config.ok()) return config.status();
  if (request.steps < 1 || request.steps > config->num_train_timesteps) {
    return absl::InvalidArgumentError(
        absl::StrCat("steps must be in 1 to ", config->num_train_timesteps));
  }
  NewSampler sampler = NewOfKind(*config, request.steps);
  if (!sampler.ok()) return sampler.status();
  (*sampler)->fingerprint_ = Checksum(absl::StrCat(
      SamplerName(*kind), " ", request.steps, " ", request.latent_pipeline, " ",
      request.scheduler_config.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  return std::shared_ptr<const Sampler>(*std::move(sampler));
}

SamplerState Sampler::Begin(uint64_t seed, const LatentShape& shape, at::Device device) const {
  SamplerState state;
  state.noise = PictureNoise(seed, shape);
  state.latent = state.noise.Next().to(device) * init_noise_sigma_;
  return state;
}

ModelInput Sampler::Input(const SamplerState& state) const {
  return {ScaleInput(state.next_call, state.latent), timesteps_[state.next_call]};
}

at::Tensor Sampler::ScaleInput(int /*call*/, const at::Tensor& latent) const { return latent; }

absl::Status Sampler::Step(const at::Tensor& model_output, SamplerState& state) const {
  if (done(state)) return absl::InternalError("the sample has taken all its steps");
  if (model_output.sizes() != state.latent.sizes()) {
    return absl::InternalError("the model output is not of the latent's shape");
  }
  state.latent = Advance(model_output.to(at::kFloat), state);
  ++state.next_call;
  return absl::OkStatus();
}

std::string Sampler::Save(const SamplerState& state) const {
  return EncodeSavePoint(fingerprint_, state);
}

absl::StatusOr<SamplerState> Sampler::Restore(absl::string_view bytes, const LatentShape& shape,
                                              at::Device device) const {
  absl::StatusOr<SamplerState> state = DecodeSavePoint(bytes, fingerprint_, shape);
  if (!state.ok()) return state.status();
  const size_t expected =
      state->next_call > model_calls() ? 0 : static_cast<size_t>(HistoryLength(state->next_call));
  if (state->next_call > model_calls() || state->history.size() != expected) {
    return absl::InvalidArgumentError("save point: not a state of this sampler");
  }
  state->latent = state->latent.to(device);
  for (at::Tensor& tensor : state->history) tensor = tensor.to(device);
  return state;
}

at::Tensor LimitPrediction(const SchedulerConfig& config, const at::Tensor& predicted) {
  if (config.thresholding) {
    const at::Tensor flat = predicted.reshape({1, -1});
    at::Tensor bound = at::quantile(flat.abs(), config.dynamic_thresholding_ratio, 1);
    bound = at::clamp(bound, 1, config.sample_max_value).unsqueeze(1);
    return (at::clamp(flat, -bound, bound) / bound).reshape(predicted.sizes());
  }
  if (config.clip_sample) {
    return at::clamp(predicted, -config.clip_sample_range, config.clip_sample_range);
  }
  return predicted;
}

}  // namespace hanmo
