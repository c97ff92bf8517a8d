// DDIM with eta = 0 (Song et al. 2020, eq. 12).
#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "workers/samplers/noise_schedule.h"
#include "workers/samplers/sampler_kinds.h"
#include "workers/samplers/torch_scalar.h"

namespace hanmo {
namespace {

struct DdimStep {
  float root_alpha;       // sqrt(a_t), the picture's share
  float root_beta;        // sqrt(1 - a_t), the noise's share
  float root_alpha_prev;  // sqrt of a at the timestep the step goes to
  float direction;        // the noise's share there
};

class Ddim : public Sampler {
 public:
  Ddim(SchedulerConfig config, std::vector<float> timesteps, std::vector<DdimStep> steps)
      : Sampler(config.kind, std::move(timesteps), 1.0f),
        config_(std::move(config)),
        steps_(std::move(steps)) {}

 private:
  at::Tensor Advance(const at::Tensor& output, SamplerState& state) const override {
    const DdimStep& c = steps_[state.next_call];
    const at::Tensor& x = state.latent;
    at::Tensor predicted = output;
    at::Tensor noise = output;
    switch (config_.prediction) {
      case PredictionType::kEpsilon:
        predicted = (x - c.root_beta * output) / c.root_alpha;
        break;
      case PredictionType::kSample:
        noise = (x - c.root_alpha * output) / c.root_beta;
        break;
      case PredictionType::kVelocity:
        predicted = c.root_alpha * x - c.root_beta * output;
        noise = c.root_alpha * output + c.root_beta * x;
        break;
    }
    predicted = LimitPrediction(config_, predicted);
    return c.root_alpha_prev * predicted + c.direction * noise;
  }

  int HistoryLength(int /*call*/) const override { return 0; }

  const SchedulerConfig config_;
  const std::vector<DdimStep> steps_;
};

}  // namespace

NewSampler NewDdim(const SchedulerConfig& config, int steps) {
  const std::vector<float> alphas = AlphasCumprod(config);
  const float final_alpha = config.set_alpha_to_one ? 1.0f : alphas.front();
  std::vector<float> timesteps;
  std::vector<DdimStep> coefficients;
  for (double timestep : PointTimesteps(config, steps)) {
    const absl::StatusOr<float> alpha = AlphaAt(alphas, timestep);
    if (!alpha.ok()) return alpha.status();
    const double previous = timestep - config.num_train_timesteps / steps;
    const float alpha_prev = previous >= 0 ? alphas[static_cast<size_t>(previous)] : final_alpha;
    const float beta = 1.0f - *alpha;
    // eta = 0 makes the variance nothing, unless it is no number.
    const float variance = (1.0f - alpha_prev) / beta * (1.0f - *alpha / alpha_prev);
    const float deviation = 0.0f * TorchSqrt(variance);
    coefficients.push_back({TorchSqrt(*alpha), TorchSqrt(beta), TorchSqrt(alpha_prev),
                            TorchSqrt(1.0f - alpha_prev - deviation * deviation)});
    const DdimStep& c = coefficients.back();
    const float divisor = config.prediction == PredictionType::kEpsilon  ? c.root_alpha
                          : config.prediction == PredictionType::kSample ? c.root_beta
                                                                         : 1.0f;
    const float used[] = {1.0f / divisor, c.direction};
    if (absl::Status s = CheckFinite(used, static_cast<int>(timesteps.size())); !s.ok()) return s;
    timesteps.push_back(static_cast<float>(timestep));
  }
  return std::make_unique<Ddim>(config, std::move(timesteps), std::move(coefficients));
}

}  // namespace hanmo
