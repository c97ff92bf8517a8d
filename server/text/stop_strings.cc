#include "server/text/stop_strings.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/text/utf8.h"

namespace hanmo {
namespace {

std::vector<size_t> Borders(absl::string_view text) {
  std::vector<size_t> fallback(text.size() + 1, 0);
  size_t border = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    while (border > 0 && text[i] != text[border]) border = fallback[border];
    if (text[i] == text[border]) ++border;
    fallback[i + 1] = border;
  }
  return fallback;
}

}  // namespace

absl::StatusOr<StopStrings> StopStrings::Create(std::vector<std::string> strings,
                                                bool include_stop) {
  if (strings.size() > kMaxStrings) {
    return absl::InvalidArgumentError(
        absl::StrCat("stop: ", strings.size(), " strings, at most ", kMaxStrings, " are allowed"));
  }
  StopStrings stops;
  stops.include_stop_ = include_stop;
  for (size_t i = 0; i < strings.size(); ++i) {
    const std::string& text = strings[i];
    if (text.empty() || text.size() > kMaxBytes || !IsValidUtf8(text)) {
      return absl::InvalidArgumentError(
          absl::StrCat("stop[", i, "]: must be 1 to ", kMaxBytes, " bytes of valid UTF-8"));
    }
    std::vector<size_t> fallback = Borders(text);
    stops.patterns_.push_back({.text = std::move(strings[i]), .fallback = std::move(fallback)});
  }
  return stops;
}

void StopStrings::Advance(Pattern& pattern, char byte) {
  size_t& matched = pattern.matched;
  while (matched > 0 && pattern.text[matched] != byte) matched = pattern.fallback[matched];
  if (pattern.text[matched] == byte) ++matched;
}

std::string StopStrings::Append(absl::string_view piece) {
  if (match_) return "";
  for (const char byte : piece) {
    held_ += byte;
    const Pattern* found = nullptr;
    for (Pattern& pattern : patterns_) {
      Advance(pattern, byte);
      const bool complete = pattern.matched == pattern.text.size();
      if (complete && (!found || pattern.text.size() > found->text.size())) found = &pattern;
    }
    if (found) {
      if (!include_stop_) held_.resize(held_.size() - found->text.size());
      match_ = {.index = static_cast<size_t>(found - patterns_.data()),
                .cut = shown_ + held_.size()};
      return Finish();
    }
  }
  size_t longest = 0;
  for (const Pattern& pattern : patterns_) longest = std::max(longest, pattern.matched);
  std::string shown = held_.substr(0, held_.size() - longest);
  held_.erase(0, shown.size());
  shown_ += shown.size();
  return shown;
}

std::string StopStrings::Finish() {
  shown_ += held_.size();
  return std::exchange(held_, "");
}

}  // namespace hanmo
