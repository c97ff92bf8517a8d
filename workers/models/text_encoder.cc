#include "workers/models/text_encoder.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/models/bert.h"
#include "workers/models/clip_text.h"
#include "workers/models/model_config.h"

namespace hanmo {
namespace {

template <typename Encoder>
absl::StatusOr<std::unique_ptr<TextEncoder>> LoadAs(Checkpoint& checkpoint, ModelOptions options) {
  absl::StatusOr<std::unique_ptr<Encoder>> encoder = Encoder::Load(checkpoint, options);
  if (!encoder.ok()) return std::move(encoder).status();
  return std::unique_ptr<TextEncoder>(*std::move(encoder));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextEncoder>> LoadTextEncoder(Checkpoint& checkpoint,
                                                             ModelOptions options) {
  ModelConfig config(checkpoint.config(), "text_encoder");
  const std::string type = config.String("model_type", "");
  const std::string name = config.Strings("architectures", {type})[0];
  if (!config.status().ok()) return config.status();
  if (name.starts_with("Bert") || name == "bert" || name == "ErnieModel" || name == "ernie") {
    return LoadAs<BertTextEncoder>(checkpoint, options);
  }
  if (name.starts_with("CLIPText") || name == "clip_text_model") {
    return LoadAs<ClipTextEncoder>(checkpoint, options);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("text_encoder config.json: architectures: \"", name,
                   "\" is not supported; it must be BertModel, ErnieModel or CLIPTextModel"));
}

}  // namespace hanmo
