// Guesses the next tokens of a text: where its last tokens stood before, what followed them there
// may follow again ("prompt lookup"); and behind a word that was copied with a change, the copy may
// go on. A guess never decides anything: it is run along with the last token and compared with the
// token that is drawn.
#ifndef HANMO_WORKERS_MODELS_TOKEN_DRAFTER_H_
#define HANMO_WORKERS_MODELS_TOKEN_DRAFTER_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace hanmo {

// Of one text; a function of the calls alone. How far it guesses follows from how well guesses of
// that kind did before, so that a text which does not repeat itself costs next to nothing.
class TokenDrafter {
 public:
  // At most `limit` guesses at what follows `tokens`, the whole text so far; often none. `rows` are
  // the positions that the step runs anyway: the more there are, the more a wrong guess costs.
  // O(tokens).
  std::vector<uint32_t> Guess(absl::Span<const uint32_t> tokens, uint32_t limit, size_t rows);
  // Of the last guesses, if there were any, the first `right` came true.
  void Learn(uint32_t right);

 private:
  // What is known of guesses of one kind. Counts fade, so that the latest say most.
  struct Trust {
    double right;  // guesses that came true
    double tries;  // those, and the first wrong one of each run
    double rate() const { return right / tries; }
    // While guessing does not pay, trials cost 1 / pause of the time.
    uint32_t pause = kShortestPause;
    double saved = 0;  // for the next, in steps
  };
  static constexpr uint32_t kShortestPause = 64;

  static uint32_t Reach(Trust& trust, size_t rows);

  // After 1, 2 to 3, and 4 or more equal tokens; after a guess that was wrong.
  enum Kind { kOne, kFew, kMany, kResumed };
  std::array<Trust, 4> trust_ = {{{0.2, 1}, {0.5, 1}, {0.7, 1}, {0.5, 1}}};
  // Of the last guesses: their kind, number, and where they were copied from.
  Kind kind_ = kOne;
  uint32_t guessed_ = 0;
  size_t source_ = SIZE_MAX;
  // Where a copy goes on if its last token was changed; SIZE_MAX: nowhere.
  size_t resume_ = SIZE_MAX;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_TOKEN_DRAFTER_H_
