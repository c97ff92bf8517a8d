// How each sampler is made from its settings. Only sampler.cc calls these.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "workers/samplers/sampler.h"
#include "workers/samplers/scheduler_config.h"

namespace hanmo {

using NewSampler = absl::StatusOr<std::unique_ptr<Sampler>>;

// `steps` is in 1 … num_train_timesteps. INVALID_ARGUMENT for settings that lead nowhere.
NewSampler NewDdim(const SchedulerConfig& config, int steps);
NewSampler NewPndm(const SchedulerConfig& config, int steps);
NewSampler NewEuler(const SchedulerConfig& config, int steps);  // both Euler samplers
NewSampler NewDpmSolver(const SchedulerConfig& config, int steps);
NewSampler NewLcm(const SchedulerConfig& config, int steps);
NewSampler NewUniPc(const SchedulerConfig& config, int steps);

// Keeps a predicted picture in the configured range: dynamic thresholding (Saharia et al. 2022,
// §2.3), or clipping, or neither.
at::Tensor LimitPrediction(const SchedulerConfig& config, const at::Tensor& predicted);

}  // namespace hanmo
