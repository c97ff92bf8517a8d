// What a checkpoint's scheduler_config.json means for one sampler: diffusers' fields and defaults,
// read once when a model loads. Every sampler is built from the result.
#pragma once

#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hanmo {

enum class SamplerKind { kDdim, kPndm, kEuler, kEulerAncestral, kDpmSolver2M, kLcm, kUniPc };

// The request's name of a sampler: "ddim", "pndm", "euler", "euler_a", "dpmpp_2m", "lcm", "unipc".
absl::string_view SamplerName(SamplerKind kind);
// The inverse. INVALID_ARGUMENT lists the names.
absl::StatusOr<SamplerKind> SamplerKindFromName(absl::string_view name);
// From the scheduler class that model_index.json or `_class_name` names, for example
// "PNDMScheduler". INVALID_ARGUMENT lists the supported classes.
absl::StatusOr<SamplerKind> SamplerKindFromClass(absl::string_view class_name);

enum class BetaSchedule { kLinear, kScaledLinear, kSquaredCosine };
enum class PredictionType { kEpsilon, kVelocity, kSample };
enum class TimestepSpacing { kLeading, kLinspace, kTrailing };
// How the sigmas of a run are chosen: the model's own at the timesteps, or a formula between the
// model's largest and smallest sigma.
enum class SigmaSpacing { kModel, kKarras, kExponential, kLuLambdas };
enum class SolverType { kMidpoint, kHeun, kBh1, kBh2 };

// One scheduler's settings; the member initialisers are diffusers' defaults where the samplers
// agree, SchedulerConfigFor() sets the others. A field that the kind does not have keeps its value
// here and is not read.
struct SchedulerConfig {
  SamplerKind kind = SamplerKind::kDdim;
  int num_train_timesteps = 1000;  // 2 … 100000
  double beta_start = 0.0001;
  double beta_end = 0.02;
  BetaSchedule beta_schedule = BetaSchedule::kLinear;
  std::vector<double> trained_betas;  // empty, or num_train_timesteps values
  PredictionType prediction = PredictionType::kEpsilon;
  TimestepSpacing spacing = TimestepSpacing::kLinspace;
  int steps_offset = 0;
  bool rescale_betas_zero_snr = false;
  // DDIM, PNDM, LCM.
  bool set_alpha_to_one = true;
  bool clip_sample = false;
  double clip_sample_range = 1.0;
  bool skip_prk_steps = false;
  int original_inference_steps = 50;
  double timestep_scaling = 10.0;
  // Dynamic thresholding of the predicted picture: DDIM, LCM, DPM-Solver++, UniPC.
  bool thresholding = false;
  double dynamic_thresholding_ratio = 0.995;
  double sample_max_value = 1.0;
  // Euler, DPM-Solver++, UniPC.
  SigmaSpacing sigma_spacing = SigmaSpacing::kModel;
  std::optional<double> sigma_min;
  std::optional<double> sigma_max;
  bool final_sigma_is_zero = true;
  bool log_linear_interpolation = false;
  bool continuous_timesteps = false;
  // DPM-Solver++, UniPC.
  int solver_order = 2;  // 1 … 3
  SolverType solver_type = SolverType::kMidpoint;
  bool lower_order_final = true;
  bool euler_at_final = false;
  double lambda_min_clipped = -std::numeric_limits<double>::infinity();
  bool predict_x0 = true;
  std::vector<int> disable_corrector;
};

// Parses the text of a scheduler_config.json. Python writes -Infinity, Infinity and NaN, which are
// not JSON; they are accepted and become the strings of that spelling.
// INVALID_ARGUMENT when the text is no JSON object.
absl::StatusOr<nlohmann::json> ParseSchedulerConfig(absl::string_view text);

// Reads `file` as diffusers' `Target.from_config(file)` does for the scheduler class of `kind`:
// keys in the file win, absent ones and those in `_use_default_values` take the class's default,
// keys of other classes are ignored. With `latent_pipeline`, clip_sample is false and steps_offset
// is 1 whatever the file says, as StableDiffusionPipeline forces them.
// INVALID_ARGUMENT names the key and what is supported: a setting is refused, never approximated.
absl::StatusOr<SchedulerConfig> SchedulerConfigFor(SamplerKind kind, const nlohmann::json& file,
                                                   bool latent_pipeline);

}  // namespace hanmo
