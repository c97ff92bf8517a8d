#include "server/rpc/token_pictures.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "server/media/picture_decoder.h"
#include "server/media/picture_resizer.h"
#include "server/rpc/text_fields.h"

namespace hanmo {
namespace {

using hanmo::v1::GenerateRequest;

constexpr char kPictureData[] = "parts.parts[0].picture.data";
// Slots of a key/value page on a worker: targets begin on a page of their own, so that the pages of
// a source can be shared.
constexpr size_t kPageTokens = 16;

// Appends padding up to whole pages; returns how much.
uint32_t PadToPages(uint32_t pad, std::vector<uint32_t>* source) {
  const size_t padded = (source->size() + kPageTokens - 1) / kPageTokens * kPageTokens;
  const auto padding = static_cast<uint32_t>(padded - source->size());
  source->resize(padded, pad);
  return padding;
}

}  // namespace

bool HasPicture(const GenerateRequest& proto) {
  const auto& parts = proto.parts().parts();
  return std::any_of(parts.begin(), parts.end(),
                     [](const auto& part) { return part.has_picture(); });
}

void CheckPictureParts(const GenerateRequest& proto, Violations* violations) {
  const auto& parts = proto.parts().parts();
  if (parts.size() <= 2 && parts[0].has_picture() && (parts.size() == 1 || parts[1].has_text())) {
    return;
  }
  violations->Add(
      "parts.parts",
      "must be one picture, and after it at most one text: how the text about it begins");
}

absl::Status ReadPicture(const GenerateRequest& proto, GenerationPlan* plan) {
  auto pixels = DecodePicture(proto.parts().parts(0).picture().data());
  if (absl::IsInvalidArgument(pixels.status())) {
    return FieldError(kPictureData, pixels.status().message());
  }
  if (!pixels.ok()) return pixels.status();
  const PictureModelSpec& model = plan->model->spec.picture;
  Pixels fitted = FitPicture(*pixels, model.width, model.height);
  plan->picture = {model.width, model.height,
                   std::make_shared<const std::string>(std::move(fitted.rgb))};
  return absl::OkStatus();
}

absl::Status SetCaptionPrompt(const GenerateRequest& proto, GenerationPlan* plan) {
  const PictureTokensSpec& model = plan->model->spec.tokens;
  if (proto.parts().parts_size() == 2) {
    auto begun = plan->model->tokenizer->Encode(proto.parts().parts(1).text(), false);
    if (!begun.ok()) return begun.status();
    plan->begun = *std::move(begun);
  }
  if (auto status = SettleLength("parts.parts[1].text", plan->begun.size(), plan); !status.ok()) {
    return status;
  }
  const uint32_t source_tokens = model.rows * model.columns;
  // The worker puts the picture's tokens in their place.
  std::vector<uint32_t> prompt(source_tokens, model.text_vocabulary);
  plan->padding = PadToPages(model.pad, &prompt);
  prompt.push_back(model.bot);
  prompt.insert(prompt.end(), plan->begun.begin(), plan->begun.end());
  for (SampleJob& sample : plan->request.samples) {
    auto& job = std::get<TextJob>(sample);
    job.prompt = prompt;
    job.source_tokens = source_tokens;
    job.picture = plan->picture;
  }
  return absl::OkStatus();
}

void SetPaintingPrompt(const std::vector<uint32_t>& source,
                       const std::vector<uint32_t>& score_prompt, GenerationPlan* plan) {
  const PictureTokensSpec& model = plan->model->spec.tokens;
  std::vector<uint32_t> prompt = source;
  plan->padding = PadToPages(model.pad, &prompt);
  prompt.push_back(model.boi);
  for (SampleJob& sample : plan->request.samples) {
    auto& job = std::get<TextJob>(sample);
    job.prompt = prompt;
    job.source_tokens = static_cast<uint32_t>(source.size());
    job.score_prompt = score_prompt;
  }
}

}  // namespace hanmo
