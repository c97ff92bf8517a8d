#include "server/text/utf8.h"

#include <cstdint>

namespace hanmo {
namespace {

enum class Form { kWhole, kBroken, kIncomplete };

struct Scan {
  Form form;
  size_t size;  // bytes of the character, or of the ill-formed part
};

// Looks at the first character of the non-empty `bytes`.
Scan ScanCharacter(absl::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {Form::kWhole, 1};
  size_t size = 0;
  // Only the second byte's range depends on the lead byte: it excludes overlong forms, surrogates
  // and what lies beyond U+10FFFF.
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    size = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    size = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    size = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {Form::kBroken, 1};
  }
  for (size_t i = 1; i < size; ++i) {
    if (i == bytes.size()) return {Form::kIncomplete, i};
    if (byte(i) < low || byte(i) > high) return {Form::kBroken, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Form::kWhole, size};
}

}  // namespace

bool IsValidUtf8(absl::string_view text) {
  while (!text.empty()) {
    const Scan scan = ScanCharacter(text);
    if (scan.form != Form::kWhole) return false;
    text.remove_prefix(scan.size);
  }
  return true;
}

size_t AppendUtf8(absl::string_view bytes, std::string* out) {
  size_t consumed = 0;
  while (consumed < bytes.size()) {
    const Scan scan = ScanCharacter(bytes.substr(consumed));
    if (scan.form == Form::kIncomplete) break;
    if (scan.form == Form::kWhole) {
      out->append(bytes.data() + consumed, scan.size);
    } else {
      out->append(kReplacementCharacter);
    }
    consumed += scan.size;
  }
  return consumed;
}

}  // namespace hanmo
