#include "server/text/chinese_spacing.h"

#include <cstddef>
#include <cstdint>

namespace hanmo {
namespace {

// Of valid UTF-8.
size_t Length(unsigned char first) {
  return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

uint32_t CodePoint(absl::string_view character) {
  const auto first = static_cast<unsigned char>(character[0]);
  uint32_t point = character.size() == 1 ? first : first & (0x7F >> character.size());
  for (const char c : character.substr(1)) {
    point = point << 6 | (static_cast<unsigned char>(c) & 0x3F);
  }
  return point;
}

// Punctuation, kana and ideographs with their extensions, and full-width forms.
bool IsChinese(uint32_t point) {
  return (point >= 0x2E80 && point <= 0x9FFF) || (point >= 0xF900 && point <= 0xFAFF) ||
         (point >= 0xFE30 && point <= 0xFE4F) || (point >= 0xFF00 && point <= 0xFFEF) ||
         (point >= 0x20000 && point <= 0x3FFFF) || point == 0x2014 || point == 0x2026 ||
         (point >= 0x2018 && point <= 0x201D);
}

}  // namespace

std::string ChineseSpacing::Append(absl::string_view piece) {
  std::string text;
  while (!piece.empty()) {
    const absl::string_view character =
        piece.substr(0, Length(static_cast<unsigned char>(piece[0])));
    piece.remove_prefix(character.size());
    if (character == " " && !space_) {
      space_ = true;
      continue;
    }
    const bool chinese = IsChinese(CodePoint(character));
    if (space_ && !chinese && !after_chinese_) text.push_back(' ');
    space_ = false;
    after_chinese_ = chinese;
    text.append(character.data(), character.size());
  }
  return text;
}

std::string ChineseSpacing::Finish() {
  const bool shown = space_ && !after_chinese_;
  space_ = false;
  return shown ? " " : "";
}

}  // namespace hanmo
