// Euler and Euler ancestral in the sigma parametrisation (Karras et al. 2022, algorithm 2 with and
// without noise added after each step).
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "workers/samplers/noise_schedule.h"
#include "workers/samplers/sampler_kinds.h"
#include "workers/samplers/torch_scalar.h"

namespace hanmo {
namespace {

struct EulerStep {
  float sigma;            // noise level the step starts from
  float root;             // sqrt(sigma² + 1), divides the model input
  float velocity_output;  // -sigma / root, factor of a velocity
  float change;           // sigma the deterministic part goes to, minus sigma
  float added;            // standard deviation of the noise added after it
};

class Euler : public Sampler {
 public:
  Euler(const SchedulerConfig& config, std::vector<float> timesteps, float init_noise_sigma,
        std::vector<EulerStep> steps)
      : Sampler(config.kind, std::move(timesteps), init_noise_sigma),
        prediction_(config.prediction),
        steps_(std::move(steps)) {}

 private:
  at::Tensor ScaleInput(int call, const at::Tensor& latent) const override {
    return latent / steps_[call].root;
  }

  at::Tensor Advance(const at::Tensor& output, SamplerState& state) const override {
    const EulerStep& c = steps_[state.next_call];
    const at::Tensor& x = state.latent;
    at::Tensor predicted = output;
    if (prediction_ == PredictionType::kEpsilon) {
      predicted = x - c.sigma * output;
    } else if (prediction_ == PredictionType::kVelocity) {
      predicted = output * c.velocity_output + x / (c.sigma * c.sigma + 1.0f);
    }
    const at::Tensor next = x + (x - predicted) / c.sigma * c.change;
    if (kind() == SamplerKind::kEuler) return next;
    return next + state.noise.Next().to(next.device()) * c.added;
  }

  int HistoryLength(int /*call*/) const override { return 0; }

  const PredictionType prediction_;
  const std::vector<EulerStep> steps_;
};

}  // namespace

NewSampler NewEuler(const SchedulerConfig& config, int steps) {
  SigmaSchedule schedule = EulerSchedule(config, steps);
  if (absl::Status s = CheckFirstTimestepIsUnique(schedule.timesteps); !s.ok()) return s;
  std::vector<EulerStep> coefficients;
  for (size_t call = 0; call < schedule.timesteps.size(); ++call) {
    const float sigma = schedule.sigmas[call];
    const float to = schedule.sigmas[call + 1];
    const float root = TorchSqrt(sigma * sigma + 1.0f);
    float down = to;
    float up = 0;
    if (config.kind == SamplerKind::kEulerAncestral) {
      up = TorchSqrt(to * to * (sigma * sigma - to * to) / (sigma * sigma));
      down = TorchSqrt(to * to - up * up);
    }
    const float used[] = {1.0f / sigma, down, up};
    if (absl::Status s = CheckFinite(used, static_cast<int>(call)); !s.ok()) return s;
    coefficients.push_back({sigma, root, -sigma / root, down - sigma, up});
  }
  float largest = *std::max_element(schedule.sigmas.begin(), schedule.sigmas.end());
  if (config.spacing == TimestepSpacing::kLeading) largest = TorchSqrt(largest * largest + 1.0f);
  return std::make_unique<Euler>(config, std::move(schedule.timesteps), largest,
                                 std::move(coefficients));
}

}  // namespace hanmo
