#include "client/agreement.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/ascii.h"

namespace hanmo {
namespace {

// Signs of Chinese texts that are no words.
constexpr absl::string_view kSigns = "　，。、；：！？「」『』（）《》“”‘’…—·";

std::vector<absl::string_view> Characters(absl::string_view text) {
  std::vector<absl::string_view> characters;
  while (!text.empty()) {
    size_t size = 1;
    while (size < text.size() && (text[size] & 0xC0) == 0x80) ++size;
    const absl::string_view character = text.substr(0, size);
    text.remove_prefix(size);
    const auto first = static_cast<unsigned char>(character[0]);
    const bool word =
        size == 1 ? absl::ascii_isalnum(first) : kSigns.find(character) == kSigns.npos;
    if (word) characters.push_back(character);
  }
  return characters;
}

}  // namespace

double Agreement(absl::string_view text, absl::string_view expected) {
  const std::vector<absl::string_view> a = Characters(text);
  const std::vector<absl::string_view> b = Characters(expected);
  if (a.empty() && b.empty()) return 1;
  // Of the characters of `a` so far and the first i of `b`.
  std::vector<size_t> longest(b.size() + 1, 0);
  for (const absl::string_view character : a) {
    size_t before = 0;  // longest[i], one character of `a` ago
    for (size_t i = 0; i < b.size(); ++i) {
      const size_t here = longest[i + 1];
      longest[i + 1] = character == b[i] ? before + 1 : std::max(longest[i + 1], longest[i]);
      before = here;
    }
  }
  return 2.0 * static_cast<double>(longest.back()) / static_cast<double>(a.size() + b.size());
}

}  // namespace hanmo
