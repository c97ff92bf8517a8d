#include "workers/models/decoder.h"

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/models/decoder_aten.h"
#include "workers/models/decoder_cpu.h"
#include "workers/models/decoder_family.h"

namespace hanmo {
namespace {

constexpr const DecoderFamily* kFamilies[] = {&kErnie45Family, &kGpt2Family, &kLlamaFamily,
                                              &kQwen3Family};

absl::StatusOr<const DecoderFamily*> FamilyOf(const nlohmann::json& config) {
  const auto type = config.find("model_type");
  std::string known;
  for (const DecoderFamily* family : kFamilies) {
    if (type != config.end() && *type == family->model_type) return family;
    absl::StrAppend(&known, known.empty() ? "\"" : ", \"", family->model_type, "\"");
  }
  return absl::InvalidArgumentError(
      absl::StrCat("config.json: model_type: ", type == config.end() ? "absent" : type->dump(),
                   ", one of ", known, " expected"));
}

// The name by which a tensor is taken; empty for what is no weight of its own.
std::string TakenName(absl::string_view name, const DecoderFamily& family, bool tied_head) {
  // A copy of the tied embedding, which .bin files repeat.
  if (name == "lm_head.weight" && tied_head) return "";
  // Computed from the config.
  if (absl::EndsWith(name, ".rotary_emb.inv_freq")) return "";
  return std::string(absl::StripPrefix(name, family.prefix));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextModel>> LoadDecoder(Checkpoint& checkpoint,
                                                       const TextModelOptions& options) {
  HANMO_ASSIGN_OR_RETURN(const DecoderFamily* family, FamilyOf(checkpoint.config()));
  HANMO_ASSIGN_OR_RETURN(const DecoderConfig config, family->parse(checkpoint.config()));
  HANMO_RETURN_IF_ERROR(checkpoint.Rename(
      [&](absl::string_view name) { return TakenName(name, *family, config.tied_head); }));
  const WeightScope weights(checkpoint);
  std::unique_ptr<TextModel> model;
  if (options.force_aten || !checkpoint.options().device.is_cpu()) {
    model = std::make_unique<DecoderAten>(*family, config, weights);
  } else {
    model = std::make_unique<DecoderCpu>(*family, config, weights, options.isa.value_or(BestIsa()));
  }
  if (!weights.status().ok()) return weights.status();
  return model;
}

}  // namespace hanmo
