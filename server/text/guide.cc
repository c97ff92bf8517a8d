#include "server/text/guide.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"
#include "server/text/bridge_result.h"

namespace hanmo {

std::string JsonSchemaGuide(absl::string_view schema) {
  return absl::StrCat("json_schema:", schema);
}
std::string RegexGuide(absl::string_view regex) { return absl::StrCat("regex:", regex); }
std::string LarkGuide(absl::string_view grammar) { return absl::StrCat("lark:", grammar); }

std::string ChoiceGuide(const std::vector<std::string>& choices) {
  using Json = nlohmann::json;
  return absl::StrCat("choice:",
                      Json(choices).dump(-1, ' ', false, Json::error_handler_t::replace));
}

absl::StatusOr<GuideStep> GuideMatcher::Next() {
  GuideStep step;
  step.mask.resize((vocabulary_size_ + 31) / 32);
  hanmo_matcher_next next = {};
  char* error = nullptr;
  if (hanmo_matcher_mask(matcher_.get(), step.mask.data(), step.mask.size(), &next, &error) != 0) {
    return absl::InvalidArgumentError(TakeMessage(error));
  }
  step.goes_on = next.allowed > 0;
  step.may_end = next.accepting;
  return step;
}

absl::Status GuideMatcher::Consume(absl::Span<const uint32_t> ids) {
  char* error = nullptr;
  if (hanmo_matcher_consume(matcher_.get(), ids.data(), ids.size(), &error) != 0) {
    return absl::InvalidArgumentError(TakeMessage(error));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<const GuideVocabulary>> GuideVocabulary::Create(
    const Tokenizer& tokenizer, GuideUse use) {
  hanmo_vocabulary* vocabulary = nullptr;
  char* error = nullptr;
  if (hanmo_vocabulary_create(tokenizer.tokenizer_, use == GuideUse::kWrite, &vocabulary, &error) !=
      0) {
    return absl::FailedPreconditionError(TakeMessage(error));
  }
  return std::unique_ptr<const GuideVocabulary>(new GuideVocabulary(vocabulary));
}

absl::StatusOr<GuideMatcher> GuideVocabulary::Match(absl::string_view guide) const {
  hanmo_matcher* matcher = nullptr;
  char* error = nullptr;
  if (hanmo_matcher_create(vocabulary_.get(), guide.data(), guide.size(), &matcher, &error) != 0) {
    return absl::InvalidArgumentError(TakeMessage(error));
  }
  return GuideMatcher(matcher, hanmo_vocabulary_size(vocabulary_.get()));
}

// Where there is no thread to be had, the first guide makes it.
BackgroundGuideVocabulary::BackgroundGuideVocabulary(std::function<Vocabulary()> make)
    : vocabulary_(std::async(std::launch::async | std::launch::deferred, std::move(make)).share()) {
}

absl::StatusOr<GuideMatcher> BackgroundGuideVocabulary::Match(absl::string_view guide) const {
  const Vocabulary& vocabulary = vocabulary_.get();
  if (!vocabulary.ok()) return vocabulary.status();
  return (*vocabulary)->Match(guide);
}

}  // namespace hanmo
