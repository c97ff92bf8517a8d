#include "workers/text_guide.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/text/tokenizer.h"

namespace hanmo {

std::shared_ptr<const BackgroundGuideVocabulary> GuidesOf(const std::string& folder,
                                                          const std::string& architecture) {
  // As the server reads it.
  const char* const hint = absl::StartsWith(architecture, "GPT2") ? "GPT2Tokenizer" : "";
  return std::make_shared<const BackgroundGuideVocabulary>(
      [folder, hint]() -> BackgroundGuideVocabulary::Vocabulary {
        auto tokenizer = Tokenizer::Load(folder, hint);
        if (!tokenizer.ok()) return tokenizer.status();
        return GuideVocabulary::Create(**tokenizer, GuideUse::kWrite);
      });
}

// Belongs to the task under way, or to the compute thread while there is none.
struct TextGuide::State {
  std::shared_ptr<const BackgroundGuideVocabulary> vocabulary;  // outlives the matcher
  std::optional<GuideMatcher> matcher;
  absl::StatusOr<GuideStep> step;  // what may come next

  absl::Mutex mu;
  bool running ABSL_GUARDED_BY(mu) = false;

  absl::StatusOr<GuideStep> Begin(absl::string_view guide, absl::Span<const uint32_t> emitted) {
    absl::StatusOr<GuideMatcher> compiled = vocabulary->Match(guide);
    if (!compiled.ok()) return compiled.status();
    matcher = *std::move(compiled);
    return Advance(emitted);
  }
  absl::StatusOr<GuideStep> Advance(absl::Span<const uint32_t> ids) {
    if (absl::Status status = matcher->Consume(ids); !status.ok()) return status;
    return matcher->Next();
  }
  void Await() {
    absl::MutexLock lock(&mu);
    mu.Await(absl::Condition(+[](State* state) { return !state->running; }, this));
  }
};

namespace {

// Runs `task`, which finds the next step, on another thread.
template <typename State>
void Launch(const std::shared_ptr<State>& state, std::function<absl::StatusOr<GuideStep>()> task) {
  {
    absl::MutexLock lock(&state->mu);
    state->running = true;
  }
  at::launch([state, task = std::move(task)] {
    state->step = task();
    absl::MutexLock lock(&state->mu);
    state->running = false;
  });
}

void Allow(absl::Span<const uint32_t> ids, std::vector<uint32_t>& mask) {
  for (const uint32_t id : ids) {
    mask.resize(std::max<size_t>(mask.size(), id / 32 + 1));
    mask[id / 32] |= uint32_t{1} << (id % 32);
  }
}

}  // namespace

TextGuide::TextGuide(std::shared_ptr<const BackgroundGuideVocabulary> vocabulary,
                     std::shared_ptr<const std::string> guide, std::vector<uint32_t> emitted)
    : state_(std::make_shared<State>()) {
  state_->vocabulary = std::move(vocabulary);
  Launch(state_, [state = state_.get(), guide = std::move(guide), emitted = std::move(emitted)] {
    return state->Begin(*guide, emitted);
  });
}

absl::StatusOr<TokenRules> TextGuide::Next(absl::Span<const uint32_t> ending_ids) {
  state_->Await();
  if (!state_->step.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("guide: ", state_->step.status().message()));
  }
  GuideStep& step = *state_->step;
  if (!step.goes_on && !step.may_end) {
    return absl::InvalidArgumentError("guide: no token of this model goes on");
  }
  if (step.may_end) Allow(ending_ids, step.mask);
  return TokenRules{step.goes_on ? ending_ids : absl::Span<const uint32_t>(), step.mask};
}

void TextGuide::Consume(uint32_t id) {
  Launch(state_, [state = state_.get(), id] { return state->Advance({&id, 1}); });
}

}  // namespace hanmo
