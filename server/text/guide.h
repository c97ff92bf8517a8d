// Texts that must match a JSON schema, a regular expression or a Lark grammar. The server checks a
// guide before it accepts it, a worker masks tokens by it; the work is done by the `llguidance`
// crate behind bridge/.
#ifndef HANMO_SERVER_TEXT_GUIDE_H_
#define HANMO_SERVER_TEXT_GUIDE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "bridge/hanmo_bridge.h"
#include "server/text/tokenizer.h"

namespace hanmo {

// A guide on its way through batcher and worker is one string: its kind and its source, as
// hanmo_matcher_create takes it.
std::string JsonSchemaGuide(absl::string_view schema);
std::string RegexGuide(absl::string_view regex);
std::string LarkGuide(absl::string_view grammar);
// One of these texts.
std::string ChoiceGuide(const std::vector<std::string>& choices);

// What may come next.
struct GuideStep {
  std::vector<uint32_t> mask;  // bit (id % 32) of word (id / 32): the token may come next
  bool goes_on = false;        // at least one bit is set
  bool may_end = false;        // the text matches as it is
};

// Follows one text through its guide; needs its vocabulary to the end. Use from one thread at a
// time. Errors are INVALID_ARGUMENT; after the first there are only errors.
class GuideMatcher {
 public:
  GuideMatcher(GuideMatcher&&) = default;
  GuideMatcher& operator=(GuideMatcher&&) = default;

  absl::StatusOr<GuideStep> Next();
  // Goes on by tokens, each of which may come next.
  absl::Status Consume(absl::Span<const uint32_t> ids);

 private:
  friend class GuideVocabulary;
  struct Free {
    void operator()(hanmo_matcher* matcher) const { hanmo_matcher_free(matcher); }
  };
  GuideMatcher(hanmo_matcher* matcher, uint32_t vocabulary_size)
      : matcher_(matcher), vocabulary_size_(vocabulary_size) {}

  std::unique_ptr<hanmo_matcher, Free> matcher_;
  uint32_t vocabulary_size_;
};

// What a vocabulary is for: texts to be written need masks at once, for which there are tables; to
// check guides takes half of the time and of the memory to prepare.
enum class GuideUse { kCheck, kWrite };

// A tokenizer's tokens as guides need them: tens of MiB for a large vocabulary. Never changes; any
// number of threads may use it at the same time.
class GuideVocabulary {
 public:
  static constexpr size_t kMaxGuideBytes = size_t{64} << 10;

  // FAILED_PRECONDITION for a tokenizer that is neither byte-level nor SentencePiece's. The
  // tokenizer is not needed later.
  static absl::StatusOr<std::unique_ptr<const GuideVocabulary>> Create(const Tokenizer& tokenizer,
                                                                       GuideUse use);

  // INVALID_ARGUMENT says what is wrong with the guide, without a field's name. Takes milliseconds;
  // tens of them for a large or a hostile guide.
  absl::StatusOr<GuideMatcher> Match(absl::string_view guide) const;

 private:
  struct Free {
    void operator()(hanmo_vocabulary* vocabulary) const { hanmo_vocabulary_free(vocabulary); }
  };
  explicit GuideVocabulary(hanmo_vocabulary* vocabulary) : vocabulary_(vocabulary) {}

  std::unique_ptr<hanmo_vocabulary, Free> vocabulary_;
};

// One that is made on a thread of its own, with the priority of the one that asks for it, so that
// no guide has to wait for it but those that come at once. Thread-safe.
class BackgroundGuideVocabulary {
 public:
  using Vocabulary = absl::StatusOr<std::unique_ptr<const GuideVocabulary>>;
  // The end of this waits for the end of `make`.
  explicit BackgroundGuideVocabulary(std::function<Vocabulary()> make);

  // As GuideVocabulary::Match, or why there is no vocabulary.
  absl::StatusOr<GuideMatcher> Match(absl::string_view guide) const;

 private:
  const std::shared_future<Vocabulary> vocabulary_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TEXT_GUIDE_H_
