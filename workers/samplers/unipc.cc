// UniPC (Zhao et al. 2023): a multistep predictor whose each result is corrected by the next model
// call's output, without calls of its own.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "workers/samplers/noise_schedule.h"
#include "workers/samplers/sampler_kinds.h"
#include "workers/samplers/solver_time.h"

namespace hanmo {
namespace {

// One transfer of the sample between two noise levels, predictor or corrector (eqs. 3 and 9):
//   x' = keep · x - base · m0 - scale · Σ rho_k (m_k - m0) / r_k
struct UniPcTransfer {
  int order = 0;  // 0: no transfer
  float keep = 0;
  float base = 0;
  float scale = 0;
  std::vector<float> ratios;  // r_k of the order - 1 older predictions
  std::vector<float> rhos;    // their weights; a corrector has one more, of the new prediction
};

struct UniPcStep {
  float alpha = 1;  // at the start of the step, to convert the model's output
  float sigma = 0;
  UniPcTransfer correct;  // from the previous call's level to this one's
  UniPcTransfer predict;  // from this level to the next
};

class UniPc : public Sampler {
 public:
  UniPc(SchedulerConfig config, std::vector<float> timesteps, std::vector<UniPcStep> steps)
      : Sampler(config.kind, std::move(timesteps), 1.0f),
        config_(std::move(config)),
        steps_(std::move(steps)) {}

 private:
  // History: the last solver_order predictions, oldest first, then the corrected sample that the
  // last predictor started from.
  at::Tensor Advance(const at::Tensor& output, SamplerState& state) const override {
    const UniPcStep& c = steps_[state.next_call];
    const at::Tensor prediction = Converted(output, state.latent, c);
    std::vector<at::Tensor> last = state.history;
    at::Tensor sample = state.latent;
    if (!last.empty()) {
      const at::Tensor begin = last.back();
      last.pop_back();
      if (c.correct.order > 0) {
        at::Tensor sum = c.correct.rhos.back() * (prediction - last.back());
        const at::Tensor older = OlderSum(c.correct, last);
        if (older.defined()) sum = older + sum;
        sample = Base(c.correct, begin, last.back()) - c.correct.scale * sum;
      }
    }
    last.push_back(prediction);
    if (last.size() > static_cast<size_t>(config_.solver_order)) last.erase(last.begin());
    at::Tensor next = Base(c.predict, sample, prediction);
    const at::Tensor older = OlderSum(c.predict, last);
    if (older.defined()) next = next - c.predict.scale * older;
    last.push_back(sample);
    state.history = std::move(last);
    return next;
  }

  // The solver's quantity: the picture with predict_x0, else the noise.
  at::Tensor Converted(const at::Tensor& output, const at::Tensor& x, const UniPcStep& c) const {
    const PredictionType from = config_.prediction;
    if (!config_.predict_x0) {
      if (from == PredictionType::kEpsilon) return output;
      if (from == PredictionType::kSample) return (x - c.alpha * output) / c.sigma;
      return c.alpha * output + c.sigma * x;
    }
    at::Tensor predicted = output;
    if (from == PredictionType::kEpsilon) predicted = (x - c.sigma * output) / c.alpha;
    if (from == PredictionType::kVelocity) predicted = c.alpha * x - c.sigma * output;
    return LimitPrediction(config_, predicted);
  }

  static at::Tensor Base(const UniPcTransfer& t, const at::Tensor& x, const at::Tensor& m0) {
    return t.keep * x - t.base * m0;
  }

  // Σ rho_k (m_k - m0) / r_k over the older predictions; undefined at order 1.
  static at::Tensor OlderSum(const UniPcTransfer& t, const std::vector<at::Tensor>& last) {
    if (t.order < 2) return {};
    const at::Tensor& m0 = last.back();
    std::vector<at::Tensor> differences;
    for (int k = 1; k < t.order; ++k) {
      differences.push_back((last[last.size() - 1 - k] - m0) / t.ratios[k - 1]);
    }
    if (t.order == 2) return t.rhos[0] * differences[0];
    // einsum's order of summation, on the shapes diffusers gives it.
    at::Tensor weights = at::empty({t.order - 1}, m0.options());
    for (int k = 0; k < t.order - 1; ++k) weights[k] = t.rhos[k];
    const at::Tensor stacked = at::stack(differences).unsqueeze(0);
    return at::einsum("k,bkc...->bc...", {weights, stacked}).squeeze(0);
  }

  int HistoryLength(int call) const override {
    return call == 0 ? 0 : std::min(call, config_.solver_order) + 1;
  }

  const SchedulerConfig config_;
  const std::vector<UniPcStep> steps_;
};

// The weights rho: the solution of the order conditions R · rho = b.
std::vector<float> Weights(const SchedulerConfig& config, const UniPcTransfer& t, float hh,
                           bool corrector) {
  const int order = t.order;
  if (corrector ? order == 1 : order == 2) return {0.5f};
  if (order == 1) return {};
  std::vector<float> nodes = t.ratios;
  nodes.push_back(1.0f);
  const at::Tensor rks = at::from_blob(nodes.data(), {order}, at::kFloat).clone();
  const float growth = TorchExpm1(hh);
  const float scale = config.solver_type == SolverType::kBh1 ? hh : growth;
  std::vector<at::Tensor> rows;
  at::Tensor b = at::empty({order}, at::kFloat);
  float phi = growth / hh - 1.0f;
  double factorial = 1;
  for (int i = 1; i <= order; ++i) {
    rows.push_back(at::pow(rks, i - 1));
    b[i - 1] = phi * static_cast<float>(factorial) / scale;
    factorial *= i + 1;
    phi = phi / hh - static_cast<float>(1 / factorial);
  }
  const at::Tensor r = at::stack(rows);
  // Two equal noise levels have no solution; not a number is refused by the caller.
  const auto [rho, info] =
      corrector ? at::linalg_solve_ex(r, b)
                : at::linalg_solve_ex(r.slice(0, 0, -1).slice(1, 0, -1), b.slice(0, 0, -1));
  if (info.item<int>() != 0) return {std::nanf("")};
  const at::Tensor flat = rho.contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

// The transfer from level `from` to level `from` + 1 with the predictions at `from` and before.
UniPcTransfer TransferFrom(const SchedulerConfig& config, const std::vector<SolverTime>& times,
                           int from, std::pair<int, bool> order_and_corrector) {
  const auto [order, corrector] = order_and_corrector;
  const SolverTime& to = times[from + 1];
  const SolverTime& start = times[from];
  const float h = to.lambda - start.lambda;
  const float hh = config.predict_x0 ? -h : h;
  const float growth = TorchExpm1(hh);
  const float share = config.predict_x0 ? to.alpha : to.sigma;
  UniPcTransfer t;
  t.order = order;
  t.keep = config.predict_x0 ? to.sigma / start.sigma : to.alpha / start.alpha;
  t.base = share * growth;
  t.scale = share * (config.solver_type == SolverType::kBh1 ? hh : growth);
  for (int k = 1; k < order; ++k) {
    t.ratios.push_back((times[from - k].lambda - start.lambda) / h);
  }
  t.rhos = Weights(config, t, hh, corrector);
  return t;
}

absl::Status CheckTransfer(const UniPcTransfer& t, int call) {
  std::vector<float> used = {t.keep, t.base, t.scale};
  for (float ratio : t.ratios) used.push_back(1.0f / ratio);
  used.insert(used.end(), t.rhos.begin(), t.rhos.end());
  return CheckFinite(used, call);
}

}  // namespace

NewSampler NewUniPc(const SchedulerConfig& config, int steps) {
  SigmaSchedule schedule = SolverSchedule(config, steps);
  if (absl::Status s = CheckFirstTimestepIsUnique(schedule.timesteps); !s.ok()) return s;
  const int calls = static_cast<int>(schedule.timesteps.size());
  const std::vector<SolverTime> times = SolverTimes(schedule.sigmas);
  std::vector<UniPcStep> coefficients(calls);
  int previous_order = 0;
  for (int call = 0; call < calls; ++call) {
    UniPcStep& c = coefficients[call];
    const SolverTime& here = times[call];
    c.alpha = here.alpha;
    c.sigma = here.sigma;
    const auto& disabled = config.disable_corrector;
    if (call > 0 && std::find(disabled.begin(), disabled.end(), call - 1) == disabled.end()) {
      c.correct = TransferFrom(config, times, call - 1, {previous_order, true});
    }
    int order = std::min(config.solver_order, call + 1);
    if (config.lower_order_final) order = std::min(order, calls - call);
    c.predict = TransferFrom(config, times, call, {order, false});
    previous_order = order;
    for (const UniPcTransfer& transfer : {c.correct, c.predict}) {
      if (transfer.order == 0) continue;
      if (absl::Status s = CheckTransfer(transfer, call); !s.ok()) return s;
    }
  }
  return std::make_unique<UniPc>(config, std::move(schedule.timesteps), std::move(coefficients));
}

}  // namespace hanmo
