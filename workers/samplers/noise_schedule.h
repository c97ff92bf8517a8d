// The tables every sampler starts from: how much of the picture and how much noise is left at each
// training timestep, and which timesteps a run of n steps visits. Floats are rounded where
// diffusers rounds them (torch float32 tensors, numpy float64 arrays), so that schedules come out
// equal, not close.
#pragma once

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "workers/samplers/scheduler_config.h"

namespace hanmo {

// alphas_cumprod: the share of signal variance per training timestep, num_train_timesteps values
// in 0 … 1, descending. With rescale_betas_zero_snr the last one is 0.
std::vector<float> AlphasCumprod(const SchedulerConfig& config);

// What a run visits and the noise level there, for samplers that think in sigmas.
struct SigmaSchedule {
  std::vector<float> timesteps;  // one per model call, descending
  // At least one more than timesteps: step k goes from sigmas[k] to sigmas[k + 1].
  std::vector<float> sigmas;
};

// `steps` timesteps of the DDIM family, descending: n points over the whole training range.
// May hold one more when `trailing` spacing and rounding make numpy's arange do so.
std::vector<double> PointTimesteps(const SchedulerConfig& config, int steps);

// Euler's schedule, also Euler ancestral's (which has fewer settings, all at their defaults here).
SigmaSchedule EulerSchedule(const SchedulerConfig& config, int steps);
// The schedule of the multistep solvers, DPM-Solver++ and UniPC: n + 1 points without the last.
SigmaSchedule SolverSchedule(const SchedulerConfig& config, int steps);

// alphas_cumprod[timestep]. INVALID_ARGUMENT (about `steps`) outside the table, which settings such
// as 1000 steps with steps_offset 1 lead to.
absl::StatusOr<float> AlphaAt(std::span<const float> alphas, double timestep);

// INVALID_ARGUMENT unless all numbers are finite: some settings divide by a noise level of zero,
// and diffusers then paints NaN.
absl::Status CheckFinite(std::span<const float> coefficients, int call);

// diffusers starts a run at the second of two equal first timesteps and then falls off the end.
// INVALID_ARGUMENT (about `steps`) for such a schedule.
absl::Status CheckFirstTimestepIsUnique(std::span<const float> timesteps);

}  // namespace hanmo
