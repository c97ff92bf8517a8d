#include "workers/models/token_drafter.h"

#include <algorithm>
#include <cmath>

namespace hanmo {
namespace {

// Longer matches promise no more.
constexpr size_t kLongestMatch = 8;
constexpr size_t kManyTokens = 4;
// A step reads all weights, whatever it runs; that takes as long as computing so many positions. 8
// to 10 were measured; with less, a guess is left out when in doubt.
constexpr double kFreeRows = 6;
// In a step of so many rows guesses gain next to nothing.
constexpr size_t kFullRows = 16;
// Share of the counts that is left after one more run of guesses.
constexpr double kFading = 0.8;
constexpr uint32_t kLongestPause = 512;

struct Found {
  size_t length = 0;  // tokens equal to the last ones
  size_t next = 0;    // position after them
};

// The longest earlier run equal to the end of the text; of equal ones the latest.
Found FindLongest(absl::Span<const uint32_t> tokens) {
  Found best;
  for (size_t next = tokens.size() - 1; next > 0 && best.length < kLongestMatch; --next) {
    const size_t longest = std::min(next, kLongestMatch);
    size_t length = 0;
    while (length < longest && tokens[next - 1 - length] == tokens[tokens.size() - 1 - length]) {
      ++length;
    }
    if (length > best.length) best = {length, next};
  }
  return best;
}

}  // namespace

std::vector<uint32_t> TokenDrafter::Guess(absl::Span<const uint32_t> tokens, uint32_t limit,
                                          size_t rows) {
  guessed_ = 0;
  std::vector<uint32_t> guesses;
  if (limit == 0 || rows >= kFullRows || tokens.empty()) return guesses;
  const Found found = FindLongest(tokens);
  kind_ = found.length == 1 ? kOne : found.length < kManyTokens ? kFew : kMany;
  source_ = found.next;
  if (resume_ < tokens.size() && found.length < kManyTokens &&
      (found.length == 0 || trust_[kResumed].rate() > trust_[kind_].rate())) {
    kind_ = kResumed;
    source_ = resume_;
  } else if (found.length == 0) {
    return guesses;
  }
  guessed_ = std::min(limit, Reach(trust_[kind_], rows));
  // Without a guess the copy goes on by the one token that is drawn.
  if (guessed_ == 0 && resume_ < tokens.size()) ++resume_;
  for (size_t from = source_; from < source_ + guessed_; ++from) {
    // Past the end of the text the guesses repeat themselves.
    guesses.push_back(from < tokens.size() ? tokens[from] : guesses[from - tokens.size()]);
  }
  return guesses;
}

void TokenDrafter::Learn(uint32_t right) {
  if (guessed_ == 0) return;
  Trust& trust = trust_[kind_];
  trust.right = trust.right * kFading + right;
  trust.tries = trust.tries * kFading + std::min(right + 1, guessed_);
  resume_ = source_ + right + 1;
}

// A guess that comes true saves a row's share of a step, (kFreeRows + rows) / rows, and costs the
// computing of one position. It pays while it comes true more often than that; each guess needs all
// those before it. While none pays, one is tried from time to time.
uint32_t TokenDrafter::Reach(Trust& trust, size_t rows) {
  const double needed = static_cast<double>(rows) / (static_cast<double>(rows) + kFreeRows);
  const double rate = std::clamp(trust.rate(), 0.001, 0.99);
  const auto reach = static_cast<uint32_t>(std::log(needed) / std::log(rate));
  if (reach > 0) {
    trust.pause = kShortestPause;
    return reach;
  }
  // A trial costs `needed` of a row's share of a step.
  trust.saved += 1.0 / trust.pause;
  if (trust.saved < needed) return 0;
  trust.saved = 0;
  trust.pause = std::min(2 * trust.pause, kLongestPause);
  return 1;
}

}  // namespace hanmo
