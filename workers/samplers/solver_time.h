// One point of a multistep solver's schedule in the terms its formulas use.
#pragma once

#include <vector>

#include "workers/samplers/torch_scalar.h"

namespace hanmo {

struct SolverTime {
  explicit SolverTime(float level)
      : alpha(1.0f / TorchSqrt(level * level + 1.0f)),
        sigma(level * alpha),
        lambda(TorchLog(alpha) - TorchLog(sigma)) {}

  float alpha;   // share of the picture
  float sigma;   // share of the noise, alpha² + sigma² = 1
  float lambda;  // log(alpha / sigma), infinite without noise
};

// All points of a schedule.
inline std::vector<SolverTime> SolverTimes(const std::vector<float>& sigmas) {
  return {sigmas.begin(), sigmas.end()};
}

}  // namespace hanmo
