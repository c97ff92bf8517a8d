// Finds stop strings in text that arrives in pieces. What is found, and where, depends on the text
// alone and never on how it was cut into pieces. One object per sample, used by one thread at a
// time.
#ifndef HANMO_SERVER_TEXT_STOP_STRINGS_H_
#define HANMO_SERVER_TEXT_STOP_STRINGS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace hanmo {

// A found stop string.
struct StopMatch {
  size_t index;  // which of the stop strings
  // Bytes from the start of the whole text to where it ends: before the stop string, or after it
  // with include_stop.
  size_t cut;
};

class StopStrings {
 public:
  static constexpr size_t kMaxStrings = 64;
  static constexpr size_t kMaxBytes = 1024;

  // At most kMaxStrings, each non-empty UTF-8 of at most kMaxBytes; INVALID_ARGUMENT otherwise. No
  // strings at all are fine. With `include_stop` the stop string is part of the text.
  static absl::StatusOr<StopStrings> Create(std::vector<std::string> strings, bool include_stop);

  // Takes the next piece (whole characters), returns what may be shown: all but the longest end
  // that can still become a stop string. The first stop string to be complete ends the text; of
  // several complete at the same byte the longest. After a match everything is swallowed.
  std::string Append(absl::string_view piece);

  // The text still held, for a generation that ended for another reason. Call once, at the end.
  std::string Finish();

  const std::optional<StopMatch>& match() const { return match_; }

 private:
  struct Pattern {
    std::string text;
    // [n]: the longest proper border of the first n bytes (Knuth-Morris-Pratt).
    std::vector<size_t> fallback;
    size_t matched = 0;  // bytes of `text` that the text so far ends with
  };

  StopStrings() = default;
  void Advance(Pattern& pattern, char byte);

  std::vector<Pattern> patterns_;
  bool include_stop_ = false;
  std::string held_;
  size_t shown_ = 0;  // bytes returned so far
  std::optional<StopMatch> match_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TEXT_STOP_STRINGS_H_
