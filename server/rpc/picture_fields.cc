#include "server/rpc/picture_fields.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace hanmo {
namespace {

using hanmo::v1::PictureParameters;

constexpr uint32_t kMaxCandidates = 64;
constexpr uint32_t kDefaultQuality = 90;

uint32_t CountOf(const PictureParameters& picture) {
  return picture.has_count() ? picture.count() : 1;
}

void CheckSide(absl::string_view field, uint32_t side, const PictureModelSpec& model,
               Violations* violations) {
  const uint32_t multiple = model.size_multiple;
  if (side >= multiple && side <= model.max_size && side % multiple == 0) return;
  violations->Add(field, absl::StrCat("must be a multiple of ", multiple, " from ", multiple,
                                      " to ", model.max_size, ", got ", side));
}

void CheckOutput(const PictureParameters& picture, Violations* violations) {
  if (!hanmo::v1::PictureFormat_IsValid(picture.format())) {
    violations->Add("picture.format", absl::StrCat("must be PNG, JPEG or WEBP, got ",
                                                   static_cast<int>(picture.format())));
  }
  if (!picture.has_quality()) return;
  if (picture.format() == hanmo::v1::PICTURE_FORMAT_JPEG ||
      picture.format() == hanmo::v1::PICTURE_FORMAT_WEBP) {
    violations->CheckRange("picture.quality", picture.quality(), 1, 100);
  } else {
    violations->Add("picture.quality", "must be absent for PNG");
  }
}

void CheckBestOf(const hanmo::v1::GenerateRequest& proto, const PictureModelSpec& model,
                 Violations* violations) {
  const PictureParameters& picture = proto.picture();
  if (!picture.has_best_of()) return;
  constexpr absl::string_view kField = "picture.best_of";
  if (model.reranker_tokens == 0) {
    violations->Add(kField, "must be absent: this model has no reranker");
  } else if (proto.has_token_ids()) {
    violations->Add(kField, "must be absent with token_ids: pictures are scored against words");
  } else {
    violations->CheckRange(kField, picture.best_of(), CountOf(picture), kMaxCandidates);
  }
}

// What is drawn token by token and what is denoised have little in common.
void RefuseDenoising(const PictureParameters& picture, Violations* violations) {
  const std::pair<absl::string_view, bool> fields[] = {
      {"picture.negative_prompt", !picture.negative_prompt().empty()},
      {"picture.steps", picture.has_steps()},
      {"picture.guidance", picture.has_guidance()},
      {"picture.sampler", !picture.sampler().empty()},
      {"picture.preview_every_steps", picture.preview_every_steps() > 0},
      {"picture.min_steps", picture.has_min_steps()}};
  for (const auto& [field, present] : fields) {
    if (present) violations->Add(field, "must be absent: this model paints by tokens");
  }
}

void RefuseTokens(const PictureParameters& picture, Violations* violations) {
  const std::pair<absl::string_view, bool> fields[] = {
      {"picture.temperature", picture.has_temperature()},
      {"picture.top_k", picture.has_top_k()},
      {"picture.top_p", picture.has_top_p()}};
  for (const auto& [field, present] : fields) {
    if (present) violations->Add(field, "must be absent: this model does not paint by tokens");
  }
}

void CheckTokens(const PictureParameters& picture, const PictureModelSpec& model,
                 Violations* violations) {
  RefuseDenoising(picture, violations);
  const auto check_side = [&](absl::string_view field, uint32_t side, uint32_t only) {
    if (side == only) return;
    violations->Add(field, absl::StrCat("must be ", only, ": this model paints ", model.width,
                                        " x ", model.height, " pixels only, got ", side));
  };
  if (picture.has_width()) check_side("picture.width", picture.width(), model.width);
  if (picture.has_height()) check_side("picture.height", picture.height(), model.height);
  if (picture.has_temperature()) {
    violations->CheckRange("picture.temperature", picture.temperature(), 0, 100);
  }
  if (picture.has_top_p()) violations->CheckPositive("picture.top_p", picture.top_p(), 1);
}

void CheckDenoising(const PictureParameters& picture, const PictureModelSpec& model,
                    Violations* violations) {
  RefuseTokens(picture, violations);
  if (picture.has_width()) CheckSide("picture.width", picture.width(), model, violations);
  if (picture.has_height()) CheckSide("picture.height", picture.height(), model, violations);
  if (picture.has_steps()) {
    violations->CheckRange("picture.steps", picture.steps(), 1, model.max_steps);
  }
  if (picture.has_min_steps()) {
    violations->CheckRange("picture.min_steps", picture.min_steps(), 1,
                           picture.has_steps() ? picture.steps() : model.steps);
  }
  if (picture.has_guidance()) {
    violations->CheckRange("picture.guidance", picture.guidance(), 0, 100);
  }
  const auto& samplers = SamplerNames();
  if (!picture.sampler().empty() &&
      std::find(samplers.begin(), samplers.end(), picture.sampler()) == samplers.end()) {
    violations->Add("picture.sampler",
                    absl::StrCat("must be one of ", absl::StrJoin(samplers, ", ")));
  }
  violations->CheckRange("picture.preview_every_steps", picture.preview_every_steps(), 0,
                         model.max_steps);
}

PictureEncoding EncodingOf(hanmo::v1::PictureFormat format) {
  if (format == hanmo::v1::PICTURE_FORMAT_JPEG) return PictureEncoding::kJpeg;
  if (format == hanmo::v1::PICTURE_FORMAT_WEBP) return PictureEncoding::kWebp;
  return PictureEncoding::kPng;
}

SampleJob TokensFrom(const PictureParameters& picture, const ModelSpec& model, uint64_t seed) {
  const PictureTokensSpec& tokens = model.tokens;
  TextJob job;
  job.sampling.temperature = picture.has_temperature() ? picture.temperature() : tokens.temperature;
  job.sampling.top_k = picture.has_top_k() ? picture.top_k() : tokens.top_k;
  job.sampling.top_p = picture.has_top_p() ? picture.top_p() : tokens.top_p;
  job.sampling.seed = seed;
  job.max_tokens = tokens.rows * tokens.columns;
  job.paint_width = model.picture.width;
  job.paint_height = model.picture.height;
  return job;
}

SampleJob DenoisingFrom(const PictureParameters& picture, const PictureModelSpec& model,
                        uint64_t seed) {
  PictureJob job;
  job.width = picture.has_width() ? picture.width() : model.width;
  job.height = picture.has_height() ? picture.height() : model.height;
  job.sampler = picture.sampler().empty() ? model.sampler : picture.sampler();
  job.steps = picture.has_steps() ? picture.steps() : model.steps;
  job.min_steps = picture.min_steps();
  job.guidance = picture.has_guidance() ? picture.guidance() : model.guidance;
  job.seed = seed;
  job.preview_every_steps = picture.preview_every_steps();
  return job;
}

}  // namespace

void PlanPicture(const hanmo::v1::GenerateRequest& proto, uint64_t drawn_seed, GenerationPlan* plan,
                 Violations* violations) {
  const PictureParameters& picture = proto.picture();
  const ModelSpec& model = plan->model->spec;
  const bool by_tokens = model.kind == ModelKind::kPictureTokens;
  if (proto.has_text()) {
    violations->Add("text", by_tokens ? "words are painted, texts are about pictures: use picture, "
                                        "or give a picture in parts"
                                      : "this model paints pictures; use picture");
  }
  if (proto.has_chat()) violations->Add("chat", "this model paints pictures; use prompt");
  if (by_tokens) {
    CheckTokens(picture, model.picture, violations);
  } else {
    CheckDenoising(picture, model.picture, violations);
  }
  if (picture.has_count()) violations->CheckRange("picture.count", picture.count(), 1, kMaxSamples);
  CheckOutput(picture, violations);
  CheckBestOf(proto, model.picture, violations);
  if (!violations->empty()) return;

  plan->format = picture.format() == hanmo::v1::PICTURE_FORMAT_UNSPECIFIED
                     ? hanmo::v1::PICTURE_FORMAT_PNG
                     : picture.format();
  plan->encode.encoding = EncodingOf(plan->format);
  plan->encode.quality = picture.has_quality() ? picture.quality() : kDefaultQuality;
  const uint64_t seed = picture.has_seed() ? picture.seed() : drawn_seed;
  if (picture.has_best_of()) plan->chosen = CountOf(picture);
  const uint32_t candidates = picture.has_best_of() ? picture.best_of() : CountOf(picture);
  for (uint32_t i = 0; i < candidates; ++i) {
    plan->request.samples.push_back(by_tokens ? TokensFrom(picture, model, seed + i)
                                              : DenoisingFrom(picture, model.picture, seed + i));
  }
  // One event for each row of the grid.
  if (by_tokens) plan->steps_per_event = model.tokens.columns;
}

}  // namespace hanmo
