#include "server/rpc/picture_fields.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace hanmo {
namespace {

using hanmo::v1::PictureParameters;

constexpr uint32_t kMaxSamples = 16;
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

void CheckPicture(const PictureParameters& picture, const PictureModelSpec& model,
                  Violations* violations) {
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
  if (picture.has_count()) violations->CheckRange("picture.count", picture.count(), 1, kMaxSamples);
  const auto& samplers = SamplerNames();
  if (!picture.sampler().empty() &&
      std::find(samplers.begin(), samplers.end(), picture.sampler()) == samplers.end()) {
    violations->Add("picture.sampler",
                    absl::StrCat("must be one of ", absl::StrJoin(samplers, ", ")));
  }
  violations->CheckRange("picture.preview_every_steps", picture.preview_every_steps(), 0,
                         model.max_steps);
  CheckOutput(picture, violations);
}

PictureEncoding EncodingOf(hanmo::v1::PictureFormat format) {
  if (format == hanmo::v1::PICTURE_FORMAT_JPEG) return PictureEncoding::kJpeg;
  if (format == hanmo::v1::PICTURE_FORMAT_WEBP) return PictureEncoding::kWebp;
  return PictureEncoding::kPng;
}

}  // namespace

void PlanPicture(const hanmo::v1::GenerateRequest& proto, uint64_t drawn_seed, GenerationPlan* plan,
                 Violations* violations) {
  const PictureParameters& picture = proto.picture();
  const PictureModelSpec& model = plan->model->spec.picture;
  if (proto.has_text()) violations->Add("text", "this model paints pictures; use picture");
  if (proto.has_chat()) violations->Add("chat", "this model paints pictures; use prompt");
  CheckPicture(picture, model, violations);
  CheckBestOf(proto, model, violations);
  if (!violations->empty()) return;

  PictureJob job;
  job.width = picture.has_width() ? picture.width() : model.width;
  job.height = picture.has_height() ? picture.height() : model.height;
  job.sampler = picture.sampler().empty() ? model.sampler : picture.sampler();
  job.steps = picture.has_steps() ? picture.steps() : model.steps;
  job.min_steps = picture.min_steps();
  job.guidance = picture.has_guidance() ? picture.guidance() : model.guidance;
  job.preview_every_steps = picture.preview_every_steps();

  plan->format = picture.format() == hanmo::v1::PICTURE_FORMAT_UNSPECIFIED
                     ? hanmo::v1::PICTURE_FORMAT_PNG
                     : picture.format();
  plan->encode.encoding = EncodingOf(plan->format);
  plan->encode.quality = picture.has_quality() ? picture.quality() : kDefaultQuality;
  const uint64_t seed = picture.has_seed() ? picture.seed() : drawn_seed;
  if (picture.has_best_of()) plan->chosen = CountOf(picture);
  const uint32_t candidates = picture.has_best_of() ? picture.best_of() : CountOf(picture);
  for (uint32_t i = 0; i < candidates; ++i) {
    job.seed = seed + i;
    plan->request.samples.emplace_back(job);
  }
}

}  // namespace hanmo
