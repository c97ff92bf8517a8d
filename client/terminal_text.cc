#include "client/terminal_text.h"

#include <cstddef>
#include <cstdint>

namespace hanmo {
namespace {

constexpr absl::string_view kReplacement = "\xEF\xBF\xBD";

struct Character {
  uint32_t code = 0;
  size_t bytes = 0;  // 0 when it is malformed
};

// The character that `text`, which is not empty, begins with.
Character First(absl::string_view text) {
  const auto byte = [text](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t bytes = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < bytes) return {};
  uint32_t code = lead & (0x7F >> bytes);
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3F);
  }
  const bool overlong = (bytes == 3 && code < 0x800) || (bytes == 4 && code < 0x10000);
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  if (overlong || surrogate || code > 0x10FFFF) return {};
  return {code, bytes};
}

bool Steers(uint32_t code) {
  if (code == '\n' || code == '\t') return false;
  const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0);
  const bool direction = code == 0x200E || code == 0x200F || code == 0x061C ||
                         (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
  const bool line_separator = code == 0x2028 || code == 0x2029;
  return control || direction || line_separator;
}

}  // namespace

std::string SafeForTerminal(absl::string_view text) {
  std::string safe;
  safe.reserve(text.size());
  while (!text.empty()) {
    const Character character = First(text);
    if (character.bytes == 0 || Steers(character.code)) {
      safe.append(kReplacement.data(), kReplacement.size());
      text.remove_prefix(character.bytes == 0 ? 1 : character.bytes);
    } else {
      safe.append(text.data(), character.bytes);
      text.remove_prefix(character.bytes);
    }
  }
  return safe;
}

bool IsUtf8(absl::string_view text) {
  while (!text.empty()) {
    const Character character = First(text);
    if (character.bytes == 0) return false;
    text.remove_prefix(character.bytes);
  }
  return true;
}

}  // namespace hanmo
