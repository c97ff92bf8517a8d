// PNDM (Liu et al. 2022): linear multistep over the last four noise predictions, started either by
// repeating the second timestep (skip_prk_steps, as Stable Diffusion does) or by three Runge-Kutta
// steps of four model calls each.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "workers/samplers/noise_schedule.h"
#include "workers/samplers/sampler_kinds.h"
#include "workers/samplers/torch_scalar.h"

namespace hanmo {
namespace {

// Model calls of the Runge-Kutta start.
constexpr int kStartCalls = 12;

// One transfer from timestep t to an earlier one, formula (9) of the paper.
struct PndmTransfer {
  float sample;      // factor of the sample
  float difference;  // a_prev - a_t
  float divisor;     // of the prediction
  float root_alpha;  // to turn a velocity into noise
  float root_beta;
};

class Pndm : public Sampler {
 public:
  Pndm(const SchedulerConfig& config, std::vector<float> timesteps,
       std::vector<PndmTransfer> transfers)
      : Sampler(config.kind, std::move(timesteps), 1.0f),
        velocity_(config.prediction == PredictionType::kVelocity),
        multistep_only_(config.skip_prk_steps),
        transfers_(std::move(transfers)) {}

 private:
  // History. Multistep only: before call 1 {prediction, sample of call 0}; later the last
  // predictions, oldest first, at most three. Runge-Kutta start: the predictions that began its
  // steps, then, inside a step, {sample at its begin, weighted sum of its predictions}.
  at::Tensor Advance(const at::Tensor& output, SamplerState& state) const override {
    if (!multistep_only_ && state.next_call < kStartCalls) return RungeKutta(output, state);
    return Multistep(output, state);
  }

  at::Tensor RungeKutta(const at::Tensor& output, SamplerState& state) const {
    const int part = state.next_call % 4;
    std::vector<at::Tensor> history = state.history;
    at::Tensor begin = state.latent;
    at::Tensor prediction = output;
    if (part == 0) {
      history.push_back(output);
      history.push_back(begin);
      history.push_back(output * (1.0 / 6));
    } else {
      at::Tensor sum = history.back();
      history.pop_back();
      begin = history.back();
      if (part < 3) {
        history.push_back(sum + output * (1.0 / 3));
      } else {
        history.pop_back();
        prediction = sum + output * (1.0 / 6);
      }
    }
    state.history = std::move(history);
    return Transferred(state.next_call, begin, prediction);
  }

  at::Tensor Multistep(const at::Tensor& output, SamplerState& state) const {
    const int call = state.next_call;
    at::Tensor begin = state.latent;
    at::Tensor e;
    std::vector<at::Tensor> last = state.history;  // oldest first
    if (multistep_only_ && call == 0) {
      e = output;
      last = {output, state.latent};
    } else if (multistep_only_ && call == 1) {
      e = (output + last[0]) / 2;
      begin = last[1];
      last.pop_back();
    } else {
      last.push_back(output);
      const size_t n = last.size();
      if (n == 2) {
        e = (3 * last[1] - last[0]) / 2;
      } else if (n == 3) {
        e = (23 * last[2] - 16 * last[1] + 5 * last[0]) / 12;
      } else {
        e = (1.0 / 24) * (55 * last[3] - 59 * last[2] + 37 * last[1] - 9 * last[0]);
        last.erase(last.begin());
      }
    }
    state.history = std::move(last);
    return Transferred(call, begin, e);
  }

  at::Tensor Transferred(int call, const at::Tensor& sample, const at::Tensor& prediction) const {
    const PndmTransfer& c = transfers_[call];
    at::Tensor noise = prediction;
    if (velocity_) noise = c.root_alpha * prediction + c.root_beta * sample;
    return c.sample * sample - c.difference * noise / c.divisor;
  }

  int HistoryLength(int call) const override {
    if (multistep_only_) return call == 0 ? 0 : call == 1 ? 2 : std::min(call - 1, 3);
    if (call >= kStartCalls) return 3;
    return call % 4 == 0 ? call / 4 : call / 4 + 3;
  }

  const bool velocity_;
  const bool multistep_only_;
  const std::vector<PndmTransfer> transfers_;
};

class TransferTable {
 public:
  explicit TransferTable(const SchedulerConfig& config)
      : alphas_(AlphasCumprod(config)),
        final_alpha_(config.set_alpha_to_one ? 1.0f : alphas_.front()) {}

  absl::StatusOr<PndmTransfer> Between(double timestep, double previous) const {
    const absl::StatusOr<float> alpha = AlphaAt(alphas_, timestep);
    if (!alpha.ok()) return alpha.status();
    float alpha_prev = final_alpha_;
    if (previous >= 0) {
      const absl::StatusOr<float> found = AlphaAt(alphas_, previous);
      if (!found.ok()) return found.status();
      alpha_prev = *found;
    }
    const float beta = 1.0f - *alpha;
    const float beta_prev = 1.0f - alpha_prev;
    return PndmTransfer{TorchSqrt(alpha_prev / *alpha), alpha_prev - *alpha,
                        *alpha * TorchSqrt(beta_prev) + TorchSqrt(*alpha * beta * alpha_prev),
                        TorchSqrt(*alpha), TorchSqrt(beta)};
  }

 private:
  std::vector<float> alphas_;
  float final_alpha_;
};

// The timesteps of the calls; `points` are the run's timesteps, descending.
std::vector<double> CallTimesteps(const SchedulerConfig& config, int steps,
                                  const std::vector<double>& points) {
  std::vector<double> calls;
  if (config.skip_prk_steps) {
    calls = points;
    if (points.size() > 1) calls.insert(calls.begin() + 1, points[1]);
    return calls;
  }
  const double half = config.num_train_timesteps / steps / 2;
  for (int step = 0; step < 3; ++step) {
    const double middle = points[step + 1] + half;
    calls.insert(calls.end(), {points[step], middle, middle, points[step + 1]});
  }
  calls.insert(calls.end(), points.begin() + 3, points.end());
  return calls;
}

}  // namespace

NewSampler NewPndm(const SchedulerConfig& config, int steps) {
  if (!config.skip_prk_steps && steps < 4) {
    return absl::InvalidArgumentError(
        "steps must be at least 4 for sampler pndm without skip_prk_steps");
  }
  const std::vector<double> calls = CallTimesteps(config, steps, PointTimesteps(config, steps));
  const TransferTable table(config);
  const int stride = config.num_train_timesteps / steps;
  std::vector<PndmTransfer> transfers;
  for (int call = 0; call < static_cast<int>(calls.size()); ++call) {
    double from = calls[call];
    double to = from - stride;
    if (config.skip_prk_steps && call == 1) {
      to = from;
      from += stride;
    } else if (!config.skip_prk_steps && call < kStartCalls) {
      to = from - (call % 2 == 1 ? 0 : stride / 2);
      from = calls[call / 4 * 4];
    }
    const absl::StatusOr<PndmTransfer> transfer = table.Between(from, to);
    if (!transfer.ok()) return transfer.status();
    const float used[] = {transfer->sample, 1.0f / transfer->divisor};
    if (absl::Status s = CheckFinite(used, call); !s.ok()) return s;
    transfers.push_back(*transfer);
  }
  return std::make_unique<Pndm>(config, std::vector<float>(calls.begin(), calls.end()),
                                std::move(transfers));
}

}  // namespace hanmo
