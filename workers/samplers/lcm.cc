// Latent consistency sampling (Luo et al. 2023): each call predicts the picture, all but the last
// noise it again to the next timestep.
#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/samplers/noise_schedule.h"
#include "workers/samplers/sampler_kinds.h"
#include "workers/samplers/torch_scalar.h"

namespace hanmo {
namespace {

struct LcmStep {
  float root_alpha;
  float root_beta;
  float root_alpha_next;
  float root_beta_next;
  float skip;  // boundary condition: the share of the sample itself
  float out;   // and of the prediction
};

class Lcm : public Sampler {
 public:
  Lcm(SchedulerConfig config, std::vector<float> timesteps, std::vector<LcmStep> steps)
      : Sampler(config.kind, std::move(timesteps), 1.0f),
        config_(std::move(config)),
        steps_(std::move(steps)) {}

 private:
  at::Tensor Advance(const at::Tensor& output, SamplerState& state) const override {
    const LcmStep& c = steps_[state.next_call];
    const at::Tensor& x = state.latent;
    at::Tensor predicted = output;
    if (config_.prediction == PredictionType::kEpsilon) {
      predicted = (x - c.root_beta * output) / c.root_alpha;
    } else if (config_.prediction == PredictionType::kVelocity) {
      predicted = c.root_alpha * x - c.root_beta * output;
    }
    predicted = LimitPrediction(config_, predicted);
    const at::Tensor denoised = c.out * predicted + c.skip * x;
    if (state.next_call == model_calls() - 1) return denoised;
    return c.root_alpha_next * denoised +
           c.root_beta_next * state.noise.Next().to(denoised.device());
  }

  int HistoryLength(int /*call*/) const override { return 0; }

  const SchedulerConfig config_;
  const std::vector<LcmStep> steps_;
};

// Every (original / steps)-th timestep of the distillation's schedule, from its last.
std::vector<int> Timesteps(const SchedulerConfig& config, int steps) {
  const int original = config.original_inference_steps;
  const int stride = config.num_train_timesteps / original;
  const double spacing = static_cast<double>(original) / steps;
  std::vector<int> timesteps;
  for (int i = 0; i < steps; ++i) {
    const int index = static_cast<int>(std::floor(i * spacing));
    timesteps.push_back((original - index) * stride - 1);
  }
  return timesteps;
}

}  // namespace

NewSampler NewLcm(const SchedulerConfig& config, int steps) {
  if (steps > config.original_inference_steps) {
    return absl::InvalidArgumentError(absl::StrCat("steps must be in 1 to ",
                                                   config.original_inference_steps,
                                                   " (original_inference_steps) for sampler lcm"));
  }
  const std::vector<float> alphas = AlphasCumprod(config);
  const std::vector<int> timesteps = Timesteps(config, steps);
  std::vector<LcmStep> coefficients;
  for (int call = 0; call < steps; ++call) {
    const int next = std::min(call + 1, steps - 1);
    const absl::StatusOr<float> alpha = AlphaAt(alphas, timesteps[call]);
    const absl::StatusOr<float> alpha_next = AlphaAt(alphas, timesteps[next]);
    if (!alpha.ok()) return alpha.status();
    if (!alpha_next.ok()) return alpha_next.status();
    const float scaled =
        static_cast<float>(timesteps[call]) * static_cast<float>(config.timestep_scaling);
    constexpr float kDataVariance = 0.25f;  // sigma_data = 0.5
    const float sum = scaled * scaled + kDataVariance;
    coefficients.push_back({TorchSqrt(*alpha), TorchSqrt(1.0f - *alpha), TorchSqrt(*alpha_next),
                            TorchSqrt(1.0f - *alpha_next), kDataVariance / sum,
                            scaled / TorchSqrt(sum)});
    const bool divides = config.prediction == PredictionType::kEpsilon;
    const float used[] = {divides ? 1.0f / coefficients.back().root_alpha : 0.0f,
                          coefficients.back().out};
    if (absl::Status s = CheckFinite(used, call); !s.ok()) return s;
  }
  return std::make_unique<Lcm>(config, std::vector<float>(timesteps.begin(), timesteps.end()),
                               std::move(coefficients));
}

}  // namespace hanmo
