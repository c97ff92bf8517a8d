#include "server/rpc/guide_fields.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "server/text/guide.h"

namespace hanmo {
namespace {

using hanmo::v1::Guide;

constexpr int kMaxChoices = 1024;
constexpr size_t kMaxChoiceBytes = 4096;

void CheckSource(const Guide& guide, absl::string_view source, Violations* violations) {
  if (!source.empty() && source.size() <= GuideVocabulary::kMaxGuideBytes) return;
  violations->Add(GuideField(guide), absl::StrCat("must be 1 to ", GuideVocabulary::kMaxGuideBytes,
                                                  " bytes, got ", source.size()));
}

void CheckChoice(const hanmo::v1::Choice& choice, Violations* violations) {
  if (choice.texts().empty() || choice.texts_size() > kMaxChoices) {
    return violations->Add(
        "text.guide.choice.texts",
        absl::StrCat("must be 1 to ", kMaxChoices, " texts, got ", choice.texts_size()));
  }
  for (int i = 0; i < choice.texts_size(); ++i) {
    const size_t bytes = choice.texts(i).size();
    if (bytes >= 1 && bytes <= kMaxChoiceBytes) continue;
    violations->Add(absl::StrCat("text.guide.choice.texts[", i, "]"),
                    absl::StrCat("must be 1 to ", kMaxChoiceBytes, " bytes, got ", bytes));
  }
}

}  // namespace

void CheckGuideFields(const hanmo::v1::TextParameters& text, const Model& model,
                      Violations* violations) {
  const Guide& guide = text.guide();
  switch (guide.guide_case()) {
    case Guide::kJsonSchema:
      CheckSource(guide, guide.json_schema(), violations);
      break;
    case Guide::kRegex:
      CheckSource(guide, guide.regex(), violations);
      break;
    case Guide::kGrammar:
      CheckSource(guide, guide.grammar(), violations);
      break;
    case Guide::kChoice:
      CheckChoice(guide.choice(), violations);
      break;
    case Guide::GUIDE_NOT_SET:
      violations->Add("text.guide", "one of json_schema, regex, grammar and choice is required");
      break;
  }
  if (model.guides == nullptr) {
    violations->Add("text.guide", "must be absent: this model has no tokenizer");
  }
  if (text.ignore_eos()) {
    violations->Add("text.ignore_eos", "must be false with a guide, which tells where a text ends");
  } else if (model.spec.text.eos_token_ids.empty() && text.stop_token_ids().empty()) {
    violations->Add("text.guide", "needs text.stop_token_ids: this model has no end-of-text token");
  }
}

std::string PackGuide(const Guide& guide) {
  switch (guide.guide_case()) {
    case Guide::kJsonSchema:
      return JsonSchemaGuide(guide.json_schema());
    case Guide::kRegex:
      return RegexGuide(guide.regex());
    case Guide::kGrammar:
      return LarkGuide(guide.grammar());
    default:
      return ChoiceGuide(
          std::vector<std::string>(guide.choice().texts().begin(), guide.choice().texts().end()));
  }
}

std::string GuideField(const Guide& guide) {
  switch (guide.guide_case()) {
    case Guide::kJsonSchema:
      return "text.guide.json_schema";
    case Guide::kRegex:
      return "text.guide.regex";
    case Guide::kGrammar:
      return "text.guide.grammar";
    default:
      return "text.guide.choice";
  }
}

}  // namespace hanmo
