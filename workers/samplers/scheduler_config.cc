#include "workers/samplers/scheduler_config.h"

#include <cmath>
#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "workers/samplers/config_reader.h"

namespace hanmo {
namespace {

using Keys = std::vector<absl::string_view>;

struct KindNames {
  SamplerKind kind;
  absl::string_view name;
  absl::string_view class_name;
};
constexpr KindNames kKinds[] = {
    {SamplerKind::kDdim, "ddim", "DDIMScheduler"},
    {SamplerKind::kPndm, "pndm", "PNDMScheduler"},
    {SamplerKind::kEuler, "euler", "EulerDiscreteScheduler"},
    {SamplerKind::kEulerAncestral, "euler_a", "EulerAncestralDiscreteScheduler"},
    {SamplerKind::kDpmSolver2M, "dpmpp_2m", "DPMSolverMultistepScheduler"},
    {SamplerKind::kLcm, "lcm", "LCMScheduler"},
    {SamplerKind::kUniPc, "unipc", "UniPCMultistepScheduler"},
};

// The constructor parameters of each scheduler class beyond those that all have. sigma_min and
// sigma_max are no parameters of DPMSolverMultistepScheduler, yet it reads them: diffusers keeps a
// file's foreign keys in the scheduler's config, and the Karras formula looks there.
Keys KeysOf(SamplerKind kind) {
  Keys keys = {"num_train_timesteps", "beta_start",      "beta_end",         "beta_schedule",
               "trained_betas",       "prediction_type", "timestep_spacing", "steps_offset"};
  auto add = [&keys](std::initializer_list<absl::string_view> more) {
    keys.insert(keys.end(), more);
  };
  if (kind != SamplerKind::kPndm) add({"rescale_betas_zero_snr"});
  if (kind == SamplerKind::kDdim || kind == SamplerKind::kLcm) {
    add({"clip_sample", "clip_sample_range"});
  }
  if (kind == SamplerKind::kDdim || kind == SamplerKind::kLcm || kind == SamplerKind::kPndm) {
    add({"set_alpha_to_one"});
  }
  if (kind == SamplerKind::kPndm) add({"skip_prk_steps"});
  if (kind == SamplerKind::kLcm) add({"original_inference_steps", "timestep_scaling"});
  const bool solver = kind == SamplerKind::kDpmSolver2M || kind == SamplerKind::kUniPc;
  if (kind == SamplerKind::kDdim || kind == SamplerKind::kLcm || solver) {
    add({"thresholding", "dynamic_thresholding_ratio", "sample_max_value"});
  }
  if (kind == SamplerKind::kEuler || solver) {
    add({"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "sigma_min", "sigma_max",
         "final_sigmas_type"});
  }
  if (kind == SamplerKind::kEuler) add({"interpolation_type", "timestep_type"});
  if (solver) add({"solver_order", "solver_type", "lower_order_final", "use_flow_sigmas"});
  if (kind == SamplerKind::kDpmSolver2M) {
    add({"algorithm_type", "euler_at_final", "use_lu_lambdas", "lambda_min_clipped",
         "variance_type"});
  }
  if (kind == SamplerKind::kUniPc) {
    add({"predict_x0", "disable_corrector", "solver_p", "use_dynamic_shifting", "shift_terminal"});
  }
  return keys;
}

SchedulerConfig DefaultsOf(SamplerKind kind) {
  SchedulerConfig config;
  config.kind = kind;
  switch (kind) {
    case SamplerKind::kDdim:
      config.spacing = TimestepSpacing::kLeading;
      config.clip_sample = true;
      break;
    case SamplerKind::kPndm:
      config.spacing = TimestepSpacing::kLeading;
      config.set_alpha_to_one = false;
      break;
    case SamplerKind::kLcm:
      config.spacing = TimestepSpacing::kLeading;
      config.beta_start = 0.00085;
      config.beta_end = 0.012;
      config.beta_schedule = BetaSchedule::kScaledLinear;
      break;
    case SamplerKind::kUniPc:
      config.solver_type = SolverType::kBh2;
      break;
    default:
      break;
  }
  return config;
}

void ReadPrediction(ConfigReader& reader, SchedulerConfig& config) {
  using enum PredictionType;
  switch (config.kind) {
    case SamplerKind::kPndm:
    case SamplerKind::kEulerAncestral:  // neither class of diffusers knows "sample"
      reader.ReadChoice<PredictionType>("prediction_type",
                                        {{"epsilon", kEpsilon}, {"v_prediction", kVelocity}},
                                        config.prediction);
      break;
    case SamplerKind::kEuler:
      reader.ReadChoice<PredictionType>("prediction_type",
                                        {{"epsilon", kEpsilon},
                                         {"v_prediction", kVelocity},
                                         {"sample", kSample},
                                         {"original_sample", kSample}},
                                        config.prediction);
      break;
    default:
      reader.ReadChoice<PredictionType>(
          "prediction_type",
          {{"epsilon", kEpsilon}, {"v_prediction", kVelocity}, {"sample", kSample}},
          config.prediction);
  }
}

void ReadSigmas(ConfigReader& reader, SchedulerConfig& config) {
  bool karras = false, exponential = false, lu = false;
  reader.Read("use_karras_sigmas", karras);
  reader.Read("use_exponential_sigmas", exponential);
  reader.Read("use_lu_lambdas", lu);
  reader.RejectIfSet("use_beta_sigmas");
  reader.RejectIfSet("use_flow_sigmas");
  if (karras && exponential) {
    reader.Reject("use_exponential_sigmas", "false when use_karras_sigmas is true");
  }
  // The order in which diffusers looks at them.
  if (exponential) config.sigma_spacing = SigmaSpacing::kExponential;
  if (lu) config.sigma_spacing = SigmaSpacing::kLuLambdas;
  if (karras) config.sigma_spacing = SigmaSpacing::kKarras;
  reader.Read("sigma_min", config.sigma_min);
  reader.Read("sigma_max", config.sigma_max);
  for (const auto& [key, sigma] :
       {std::pair{"sigma_min", config.sigma_min}, std::pair{"sigma_max", config.sigma_max}}) {
    if (sigma && !(*sigma > 0 && std::isfinite(*sigma))) reader.Reject(key, "null or above 0");
  }
  reader.ReadChoice<bool>("final_sigmas_type", {{"zero", true}, {"sigma_min", false}},
                          config.final_sigma_is_zero);
  reader.ReadChoice<bool>("interpolation_type", {{"linear", false}, {"log_linear", true}},
                          config.log_linear_interpolation);
  reader.ReadChoice<bool>("timestep_type", {{"discrete", false}, {"continuous", true}},
                          config.continuous_timesteps);
}

void ReadSolver(ConfigReader& reader, SchedulerConfig& config) {
  using enum SolverType;
  reader.Read("solver_order", config.solver_order);
  if (config.solver_order < 1 || config.solver_order > 3) {
    reader.Reject("solver_order", "in 1 to 3");
  }
  // Each solver maps the other's types to its own default, as diffusers does.
  if (config.kind == SamplerKind::kDpmSolver2M) {
    reader.ReadChoice<SolverType>("solver_type",
                                  {{"midpoint", kMidpoint},
                                   {"heun", kHeun},
                                   {"logrho", kMidpoint},
                                   {"bh1", kMidpoint},
                                   {"bh2", kMidpoint}},
                                  config.solver_type);
  } else {
    reader.ReadChoice<SolverType>(
        "solver_type",
        {{"bh1", kBh1}, {"bh2", kBh2}, {"midpoint", kBh2}, {"heun", kBh2}, {"logrho", kBh2}},
        config.solver_type);
  }
  int algorithm = 0;
  reader.ReadChoice<int>("algorithm_type", {{"dpmsolver++", 0}, {"deis", 0}}, algorithm);
  reader.Read("lower_order_final", config.lower_order_final);
  reader.Read("euler_at_final", config.euler_at_final);
  reader.Read("lambda_min_clipped", config.lambda_min_clipped);
  reader.Read("predict_x0", config.predict_x0);
  reader.Read("disable_corrector", config.disable_corrector);
  for (absl::string_view key :
       {"variance_type", "solver_p", "use_dynamic_shifting", "shift_terminal"}) {
    reader.RejectIfSet(key);
  }
}

void ReadBetas(ConfigReader& reader, SchedulerConfig& config) {
  reader.Read("num_train_timesteps", config.num_train_timesteps);
  // The upper bound keeps a torn file from asking for gigabytes.
  if (config.num_train_timesteps < 2 || config.num_train_timesteps > 100000) {
    reader.Reject("num_train_timesteps", "in 2 to 100000");
  }
  for (const auto& [key, beta] :
       {std::pair<absl::string_view, double*>{"beta_start", &config.beta_start},
        {"beta_end", &config.beta_end}}) {
    reader.Read(key, *beta);
    if (!(*beta >= 0 && *beta < 1)) reader.Reject(key, "in 0 to 1");
  }
  reader.ReadChoice<BetaSchedule>("beta_schedule",
                                  {{"linear", BetaSchedule::kLinear},
                                   {"scaled_linear", BetaSchedule::kScaledLinear},
                                   {"squaredcos_cap_v2", BetaSchedule::kSquaredCosine}},
                                  config.beta_schedule);
  reader.Read("trained_betas", config.trained_betas);
  if (!config.trained_betas.empty() &&
      config.trained_betas.size() != static_cast<size_t>(config.num_train_timesteps)) {
    reader.Reject("trained_betas", "null or num_train_timesteps numbers");
  }
  reader.Read("rescale_betas_zero_snr", config.rescale_betas_zero_snr);
}

void ReadPictureRange(ConfigReader& reader, SchedulerConfig& config) {
  reader.Read("clip_sample", config.clip_sample);
  reader.Read("clip_sample_range", config.clip_sample_range);
  reader.Read("thresholding", config.thresholding);
  reader.Read("dynamic_thresholding_ratio", config.dynamic_thresholding_ratio);
  if (!(config.dynamic_thresholding_ratio >= 0 && config.dynamic_thresholding_ratio <= 1)) {
    reader.Reject("dynamic_thresholding_ratio", "in 0 to 1");
  }
  reader.Read("sample_max_value", config.sample_max_value);
}

}  // namespace

absl::string_view SamplerName(SamplerKind kind) {
  for (const KindNames& names : kKinds) {
    if (names.kind == kind) return names.name;
  }
  return "";
}

absl::StatusOr<SamplerKind> SamplerKindFromName(absl::string_view name) {
  for (const KindNames& names : kKinds) {
    if (names.name == name) return names.kind;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("sampler must be one of ",
                   absl::StrJoin(kKinds, ", ", [](std::string* out, const KindNames& names) {
                     absl::StrAppend(out, names.name);
                   })));
}

absl::StatusOr<SamplerKind> SamplerKindFromClass(absl::string_view class_name) {
  for (const KindNames& names : kKinds) {
    if (names.class_name == class_name) return names.kind;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("scheduler class ", class_name.substr(0, 60), " is not supported; supported: ",
                   absl::StrJoin(kKinds, ", ", [](std::string* out, const KindNames& names) {
                     absl::StrAppend(out, names.class_name);
                   })));
}

absl::StatusOr<nlohmann::json> ParseSchedulerConfig(absl::string_view text) {
  std::string strict;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (in_string && text[i] == '\\' && i + 1 < text.size()) {
      strict.push_back(text[i++]);
    } else if (text[i] == '"') {
      in_string = !in_string;
    } else if (!in_string) {
      for (absl::string_view word : {"-Infinity", "Infinity", "NaN"}) {
        if (!absl::StartsWith(text.substr(i), word)) continue;
        absl::StrAppend(&strict, "\"", word, "\"");
        i += word.size();
        break;
      }
      if (i >= text.size()) break;
      if (text[i] == '"') in_string = true;
    }
    strict.push_back(text[i]);
  }
  nlohmann::json file = nlohmann::json::parse(strict, nullptr, /*allow_exceptions=*/false);
  if (!file.is_object()) {
    return absl::InvalidArgumentError("scheduler_config.json must be a JSON object");
  }
  return file;
}

absl::StatusOr<SchedulerConfig> SchedulerConfigFor(SamplerKind kind, const nlohmann::json& file,
                                                   bool latent_pipeline) {
  if (!file.is_object()) {
    return absl::InvalidArgumentError("scheduler_config.json must be a JSON object");
  }
  ConfigReader reader(file, KeysOf(kind));
  SchedulerConfig config = DefaultsOf(kind);
  ReadBetas(reader, config);
  ReadPrediction(reader, config);
  reader.ReadChoice<TimestepSpacing>("timestep_spacing",
                                     {{"leading", TimestepSpacing::kLeading},
                                      {"linspace", TimestepSpacing::kLinspace},
                                      {"trailing", TimestepSpacing::kTrailing}},
                                     config.spacing);
  reader.Read("steps_offset", config.steps_offset);
  if (std::abs(config.steps_offset) > config.num_train_timesteps) {
    reader.Reject("steps_offset", "at most num_train_timesteps");
  }
  reader.Read("set_alpha_to_one", config.set_alpha_to_one);
  reader.Read("skip_prk_steps", config.skip_prk_steps);
  reader.Read("original_inference_steps", config.original_inference_steps);
  if (kind == SamplerKind::kLcm && (config.original_inference_steps < 1 ||
                                    config.original_inference_steps > config.num_train_timesteps)) {
    reader.Reject("original_inference_steps", "in 1 to num_train_timesteps");
  }
  reader.Read("timestep_scaling", config.timestep_scaling);
  ReadPictureRange(reader, config);
  ReadSigmas(reader, config);
  ReadSolver(reader, config);
  if (!reader.status().ok()) return reader.status();
  if (latent_pipeline) {
    config.clip_sample = false;
    config.steps_offset = 1;
  }
  return config;
}

}  // namespace hanmo
