#include "workers/samplers/noise_schedule.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

std::vector<float> ToVector(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.contiguous();
  return {flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel()};
}

at::Tensor ToTensor(std::span<const float> values) {
  return at::from_blob(const_cast<float*>(values.data()), {static_cast<int64_t>(values.size())},
                       at::kFloat)
      .clone();
}

// beta_t = min(1 - f(t + 1) / f(t), 0.999), f(t) = cos²((t + 0.008) / 1.008 · π / 2)
// (Nichol & Dhariwal 2021, eq. 17).
at::Tensor SquaredCosineBetas(int count) {
  auto alpha_bar = [](double t) {
    return std::pow(std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2), 2.0);
  };
  std::vector<float> betas(count);
  for (int i = 0; i < count; ++i) {
    const double t1 = static_cast<double>(i) / count;
    const double t2 = static_cast<double>(i + 1) / count;
    betas[i] = static_cast<float>(std::min(1 - alpha_bar(t2) / alpha_bar(t1), 0.999));
  }
  return ToTensor(betas);
}

// Shifts and scales sqrt(alphas_cumprod) so that the last is 0 and the first stays
// (Lin et al. 2023, algorithm 1).
at::Tensor RescaleToZeroSnr(const at::Tensor& betas) {
  at::Tensor root = at::cumprod(1.0 - betas, 0).sqrt();
  const at::Tensor first = root[0].clone();
  const at::Tensor last = root[-1].clone();
  root -= last;
  root *= first / (first - last);
  const at::Tensor alphas_cumprod = root.pow(2);
  const at::Tensor alphas = alphas_cumprod.slice(0, 1) / alphas_cumprod.slice(0, 0, -1);
  return 1 - at::cat({alphas_cumprod.slice(0, 0, 1), alphas});
}

// numpy.linspace(start, stop, count, endpoint), with its order of operations.
std::vector<double> Linspace(double start, double stop, int count) {
  std::vector<double> values(count);
  const int intervals = count - 1;
  const double delta = stop - start;
  const double step = intervals > 0 ? delta / intervals : delta;
  for (int i = 0; i < count; ++i) values[i] = i * step + start;
  if (intervals > 0) values.back() = stop;
  return values;
}

// numpy.arange(start, 0, -step).round()
std::vector<double> RoundedDescent(double start, double step) {
  const int count = std::max(0, static_cast<int>(std::ceil(start / step)));
  const double delta = (start - step) - start;
  std::vector<double> values(count);
  for (int i = 0; i < count; ++i) values[i] = std::nearbyint(start + i * delta);
  return values;
}

// numpy.interp(x, 0 … n-1, table)
double InterpolateTable(double x, std::span<const float> table) {
  const int last = static_cast<int>(table.size()) - 1;
  if (x <= 0) return table.front();
  if (x >= last) return table.back();
  const int low = static_cast<int>(std::floor(x));
  if (x == low) return table[low];
  const double slope = static_cast<double>(table[low + 1]) - static_cast<double>(table[low]);
  return slope * (x - low) + static_cast<double>(table[low]);
}

// The noise level sqrt((1 - a) / a) at each training timestep, ascending.
std::vector<float> SigmaTable(std::vector<float> alphas, bool zero_snr) {
  // Finite at the last timestep: the smallest positive float16.
  if (zero_snr) alphas.back() = 0x1p-24f;
  const at::Tensor alphas_cumprod = ToTensor(alphas);
  return ToVector(((1 - alphas_cumprod) / alphas_cumprod).sqrt());
}

// The real-valued training timestep at which the model has this sigma, by interpolating log sigma.
double TimestepOfSigma(double sigma, std::span<const float> log_sigmas) {
  const double log_sigma = std::log(std::max(sigma, 1e-10));
  const int last_low = static_cast<int>(log_sigmas.size()) - 2;
  int low = 0;
  for (int i = static_cast<int>(log_sigmas.size()) - 1; i > 0; --i) {
    if (log_sigma - static_cast<double>(log_sigmas[i]) >= 0) {
      low = i;
      break;
    }
  }
  low = std::min(low, last_low);
  const float span = log_sigmas[low] - log_sigmas[low + 1];
  const double weight =
      std::clamp((static_cast<double>(log_sigmas[low]) - log_sigma) / span, 0.0, 1.0);
  return (1 - weight) * low + weight * (low + 1);
}

// Sigmas from `largest` to `smallest` by the configured formula, in float64.
std::vector<double> FormulaSigmas(const SchedulerConfig& config, double largest, double smallest,
                                  int steps) {
  if (config.sigma_spacing == SigmaSpacing::kLuLambdas) {
    // Uniform in log sigma, from logs that were float32.
    std::vector<double> lambdas = Linspace(0, 1, steps);
    for (double& value : lambdas) value = std::exp(largest + value * (smallest - largest));
    return lambdas;
  }
  smallest = config.sigma_min.value_or(smallest);
  largest = config.sigma_max.value_or(largest);
  if (config.sigma_spacing == SigmaSpacing::kExponential) {
    std::vector<double> sigmas = Linspace(std::log(largest), std::log(smallest), steps);
    for (double& value : sigmas) value = std::exp(value);
    return sigmas;
  }
  constexpr double kRho = 7.0;  // Karras et al. 2022, eq. 5
  const double high = std::pow(largest, 1 / kRho);
  const double low = std::pow(smallest, 1 / kRho);
  std::vector<double> sigmas = Linspace(0, 1, steps);
  for (double& value : sigmas) value = std::pow(high + value * (low - high), kRho);
  return sigmas;
}

std::vector<float> LogTable(std::vector<float> sigmas) {
  for (float& value : sigmas) value = std::log(value);
  return sigmas;
}

std::vector<float> ToFloats(std::span<const double> values) {
  return {values.begin(), values.end()};
}

// Where a solver's run stops before noise level zero: lambda_min_clipped bounds log(alpha/sigma).
int LastTimestep(const SchedulerConfig& config, std::span<const float> alphas) {
  if (config.kind != SamplerKind::kDpmSolver2M) return config.num_train_timesteps;
  std::vector<float> clipped(alphas.begin(), alphas.end());
  if (config.rescale_betas_zero_snr) clipped.back() = 0x1p-24f;
  const at::Tensor alphas_cumprod = ToTensor(clipped);
  const at::Tensor lambdas =
      at::log(at::sqrt(alphas_cumprod)) - at::log(at::sqrt(1 - alphas_cumprod));
  const int64_t skipped =
      at::searchsorted(at::flip(lambdas, {0}), at::Scalar(config.lambda_min_clipped))
          .item<int64_t>();
  return config.num_train_timesteps - static_cast<int>(skipped);
}

std::vector<double> SolverTimesteps(const SchedulerConfig& config, int last, int steps) {
  std::vector<double> timesteps;
  switch (config.spacing) {
    case TimestepSpacing::kLinspace:
      timesteps = Linspace(0, last - 1, steps + 1);
      for (double& value : timesteps) value = std::nearbyint(value);
      std::reverse(timesteps.begin(), timesteps.end());
      timesteps.pop_back();
      break;
    case TimestepSpacing::kLeading: {
      const int ratio = last / (steps + 1);
      for (int i = steps; i >= 1; --i) timesteps.push_back(i * ratio + config.steps_offset);
      break;
    }
    case TimestepSpacing::kTrailing:
      timesteps = RoundedDescent(last, static_cast<double>(config.num_train_timesteps) / steps);
      for (double& value : timesteps) value -= 1;
      break;
  }
  return timesteps;
}

}  // namespace

std::vector<float> AlphasCumprod(const SchedulerConfig& config) {
  const int count = config.num_train_timesteps;
  at::Tensor betas;
  if (!config.trained_betas.empty()) {
    betas = ToTensor(ToFloats(config.trained_betas));
  } else if (config.beta_schedule == BetaSchedule::kSquaredCosine) {
    betas = SquaredCosineBetas(count);
  } else if (config.beta_schedule == BetaSchedule::kScaledLinear) {
    betas = at::linspace(std::pow(config.beta_start, 0.5), std::pow(config.beta_end, 0.5), count,
                         at::kFloat)
                .pow(2);
  } else {
    betas = at::linspace(config.beta_start, config.beta_end, count, at::kFloat);
  }
  if (config.rescale_betas_zero_snr) betas = RescaleToZeroSnr(betas);
  return ToVector(at::cumprod(1.0 - betas, 0));
}

std::vector<double> PointTimesteps(const SchedulerConfig& config, int steps) {
  const int count = config.num_train_timesteps;
  std::vector<double> timesteps;
  switch (config.spacing) {
    case TimestepSpacing::kLinspace:
      timesteps = Linspace(0, count - 1, steps);
      std::reverse(timesteps.begin(), timesteps.end());
      // Euler's classes keep the fractions, as float32.
      for (double& value : timesteps) {
        const bool euler =
            config.kind == SamplerKind::kEuler || config.kind == SamplerKind::kEulerAncestral;
        value = euler ? static_cast<float>(value) : std::nearbyint(value);
      }
      break;
    case TimestepSpacing::kLeading:
      for (int i = steps - 1; i >= 0; --i) {
        timesteps.push_back(i * (count / steps) + config.steps_offset);
      }
      break;
    case TimestepSpacing::kTrailing:
      timesteps = RoundedDescent(count, static_cast<double>(count) / steps);
      for (double& value : timesteps) value -= 1;
      break;
  }
  return timesteps;
}

SigmaSchedule EulerSchedule(const SchedulerConfig& config, int steps) {
  const std::vector<float> table = SigmaTable(AlphasCumprod(config), config.rescale_betas_zero_snr);
  std::vector<double> timesteps = PointTimesteps(config, steps);
  std::vector<double> sigmas;
  if (config.log_linear_interpolation) {
    const at::Tensor levels =
        at::linspace(std::log(table.back()), std::log(table.front()), steps + 1, at::kFloat).exp();
    for (float value : ToVector(levels)) sigmas.push_back(value);
  } else {
    for (double timestep : timesteps) sigmas.push_back(InterpolateTable(timestep, table));
  }
  if (config.sigma_spacing != SigmaSpacing::kModel) {
    const std::vector<float> logs = LogTable(table);
    sigmas = FormulaSigmas(config, sigmas.front(), sigmas.back(), steps);
    timesteps.clear();
    for (double sigma : sigmas) timesteps.push_back(TimestepOfSigma(sigma, logs));
  }
  sigmas.push_back(config.final_sigma_is_zero ? 0.0f : table.front());
  SigmaSchedule schedule{ToFloats(timesteps), ToFloats(sigmas)};
  if (config.continuous_timesteps && config.prediction == PredictionType::kVelocity) {
    const at::Tensor logs = at::log(ToTensor(schedule.sigmas)) * 0.25;
    schedule.timesteps = ToVector(logs);
    schedule.timesteps.pop_back();
  }
  return schedule;
}

SigmaSchedule SolverSchedule(const SchedulerConfig& config, int steps) {
  const std::vector<float> alphas = AlphasCumprod(config);
  const std::vector<float> table = SigmaTable(alphas, config.rescale_betas_zero_snr);
  const std::vector<float> logs = LogTable(table);
  const bool unipc = config.kind == SamplerKind::kUniPc;
  std::vector<double> timesteps = SolverTimesteps(config, LastTimestep(config, alphas), steps);
  std::vector<double> sigmas;
  float smallest = table.front();
  if (config.sigma_spacing == SigmaSpacing::kModel) {
    for (double timestep : timesteps) sigmas.push_back(InterpolateTable(timestep, table));
  } else {
    const std::vector<float>& ends =
        config.sigma_spacing == SigmaSpacing::kLuLambdas ? logs : table;
    sigmas = FormulaSigmas(config, ends.back(), ends.front(), steps);
    // Exponential sigmas lead to truncated timesteps in diffusers, the others to rounded ones
    // except where the solver keeps cosine schedules fractional and truncates those as well.
    const bool rounds = config.sigma_spacing != SigmaSpacing::kExponential &&
                        (unipc || config.beta_schedule != BetaSchedule::kSquaredCosine);
    timesteps.clear();
    for (double sigma : sigmas) {
      const double timestep = TimestepOfSigma(sigma, logs);
      timesteps.push_back(rounds ? std::nearbyint(timestep) : std::trunc(timestep));
    }
    if (unipc) smallest = static_cast<float>(sigmas.back());
  }
  sigmas.push_back(config.final_sigma_is_zero ? 0.0f : smallest);
  return {ToFloats(timesteps), ToFloats(sigmas)};
}

absl::StatusOr<float> AlphaAt(std::span<const float> alphas, double timestep) {
  if (!(timestep >= 0 && timestep < static_cast<double>(alphas.size()))) {
    return absl::InvalidArgumentError(absl::StrCat("steps: this number leads to training timestep ",
                                                   timestep, ", outside 0 to ", alphas.size() - 1,
                                                   "; ask for fewer"));
  }
  return alphas[static_cast<size_t>(timestep)];
}

absl::Status CheckFinite(std::span<const float> coefficients, int call) {
  for (float value : coefficients) {
    if (!std::isfinite(value)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "scheduler_config.json: these settings divide by a noise level of zero at model call ",
          call,
          " (check final_sigmas_type, lower_order_final, rescale_betas_zero_snr, "
          "timestep_spacing)"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckFirstTimestepIsUnique(std::span<const float> timesteps) {
  if (std::count(timesteps.begin(), timesteps.end(), timesteps.front()) > 1) {
    return absl::InvalidArgumentError(
        "steps: this number repeats the first timestep; ask for fewer");
  }
  return absl::OkStatus();
}

}  // namespace hanmo
