// Which of a picture model's denoising networks predicts at which timesteps, as model_index.json
// says it; docs/ernie-vilg-2.md is the layout's description.
#ifndef HANMO_WORKERS_MODELS_EXPERT_RANGES_H_
#define HANMO_WORKERS_MODELS_EXPERT_RANGES_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace hanmo {

// A network for the timesteps t with t_min <= t < t_max.
struct ExpertRange {
  std::string subfolder;
  int64_t t_min = 0;
  int64_t t_max = 0;
};

// In the order in which a picture needs them: from the highest timesteps to 0. One, "unet", for a
// model without experts. INVALID_ARGUMENT names the entry that is malformed, the timesteps of
// 0 to train_timesteps - 1 that no expert has, or those that two have.
absl::StatusOr<std::vector<ExpertRange>> ReadExpertRanges(const nlohmann::json& model_index,
                                                          int64_t train_timesteps);

// Index of the expert for a timestep. Samplers may ask for one beyond the trained ones, by rounding
// or by an offset: the nearest expert has it.
size_t ExpertAt(const std::vector<ExpertRange>& experts, float timestep);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_EXPERT_RANGES_H_
