// Multistep DPM-Solver++ (Lu et al. 2022, "2M" at order 2) over predicted pictures.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "workers/samplers/noise_schedule.h"
#include "workers/samplers/sampler_kinds.h"
#include "workers/samplers/solver_time.h"

namespace hanmo {
namespace {

// One update  x' = keep · x - now · D0 - first · D1 - second · D2  with the differences D of the
// last predictions; order 1 uses D0 only, order 2 D0 and D1.
struct DpmStep {
  int order = 1;
  float alpha = 1;  // at the start of the step, to predict the picture
  float sigma = 0;
  float keep = 0;
  float now = 0;
  float first = 0;
  float second = 0;
  float inverse_r0 = 0;
  float inverse_r1 = 0;
  float mix = 0;          // r0 / (r0 + r1)
  float inverse_sum = 0;  // 1 / (r0 + r1)
};

class DpmSolver : public Sampler {
 public:
  DpmSolver(SchedulerConfig config, std::vector<float> timesteps, std::vector<DpmStep> steps)
      : Sampler(config.kind, std::move(timesteps), 1.0f),
        config_(std::move(config)),
        steps_(std::move(steps)) {}

 private:
  // History: the last solver_order - 1 predicted pictures, oldest first.
  at::Tensor Advance(const at::Tensor& output, SamplerState& state) const override {
    const DpmStep& c = steps_[state.next_call];
    const at::Tensor& x = state.latent;
    at::Tensor predicted = output;
    if (config_.prediction == PredictionType::kEpsilon) {
      predicted = (x - c.sigma * output) / c.alpha;
    } else if (config_.prediction == PredictionType::kVelocity) {
      predicted = c.alpha * x - c.sigma * output;
    }
    predicted = LimitPrediction(config_, predicted);
    std::vector<at::Tensor> last = state.history;
    last.push_back(predicted);
    at::Tensor next = c.keep * x - c.now * predicted;
    if (c.order == 2) {
      next = next - c.first * (c.inverse_r0 * (predicted - last[last.size() - 2]));
    } else if (c.order == 3) {
      const at::Tensor& m1 = last[last.size() - 2];
      const at::Tensor& m2 = last[last.size() - 3];
      const at::Tensor d10 = c.inverse_r0 * (predicted - m1);
      const at::Tensor d11 = c.inverse_r1 * (m1 - m2);
      const at::Tensor d1 = d10 + c.mix * (d10 - d11);
      const at::Tensor d2 = c.inverse_sum * (d10 - d11);
      next = next - c.first * d1 - c.second * d2;
    }
    if (last.size() >= static_cast<size_t>(config_.solver_order)) last.erase(last.begin());
    state.history = std::move(last);
    return next;
  }

  int HistoryLength(int call) const override { return std::min(call, config_.solver_order - 1); }

  const SchedulerConfig config_;
  const std::vector<DpmStep> steps_;
};

// Lower orders warm up the history and, where asked for, end the run.
int OrderOf(const SchedulerConfig& config, int call, int calls) {
  const bool short_run = config.lower_order_final && calls < 15;
  if (call == calls - 1 && (config.euler_at_final || short_run || config.final_sigma_is_zero)) {
    return 1;
  }
  int order = std::min(config.solver_order, call + 1);
  if (call == calls - 2 && short_run) order = std::min(order, 2);
  return order;
}

DpmStep StepFrom(const SchedulerConfig& config, const std::vector<SolverTime>& times, int call,
                 int order) {
  const SolverTime& to = times[call + 1];
  const SolverTime& from = times[call];
  const float h = to.lambda - from.lambda;
  const float decay = TorchExp(-h) - 1.0f;
  DpmStep c;
  c.order = order;
  c.alpha = from.alpha;
  c.sigma = from.sigma;
  c.keep = to.sigma / from.sigma;
  c.now = to.alpha * decay;
  if (order == 1) return c;
  const float h0 = from.lambda - times[call - 1].lambda;
  const float r0 = h0 / h;
  c.inverse_r0 = 1.0f / r0;
  // Heun's form and order 3 share this factor, with the opposite sign of midpoint's.
  const float heun = -(to.alpha * (decay / h + 1.0f));
  c.first = order == 3 || config.solver_type == SolverType::kHeun ? heun : 0.5f * c.now;
  if (order == 2) return c;
  const float h1 = times[call - 1].lambda - times[call - 2].lambda;
  const float r1 = h1 / h;
  c.inverse_r1 = 1.0f / r1;
  c.mix = r0 / (r0 + r1);
  c.inverse_sum = 1.0f / (r0 + r1);
  c.second = to.alpha * ((decay + h) / (h * h) - 0.5f);
  return c;
}

}  // namespace

NewSampler NewDpmSolver(const SchedulerConfig& config, int steps) {
  SigmaSchedule schedule = SolverSchedule(config, steps);
  if (schedule.timesteps.empty()) {
    return absl::InvalidArgumentError(
        "scheduler_config.json: lambda_min_clipped leaves no timestep");
  }
  if (absl::Status s = CheckFirstTimestepIsUnique(schedule.timesteps); !s.ok()) return s;
  const int calls = static_cast<int>(schedule.timesteps.size());
  const std::vector<SolverTime> times = SolverTimes(schedule.sigmas);
  std::vector<DpmStep> coefficients;
  for (int call = 0; call < calls; ++call) {
    const DpmStep c = StepFrom(config, times, call, OrderOf(config, call, calls));
    const float used[] = {c.keep,       c.now,        c.first, c.second,
                          c.inverse_r0, c.inverse_r1, c.mix,   c.inverse_sum};
    if (absl::Status s = CheckFinite(used, call); !s.ok()) return s;
    coefficients.push_back(c);
  }
  return std::make_unique<DpmSolver>(config, std::move(schedule.timesteps),
                                     std::move(coefficients));
}

}  // namespace hanmo
