// UTF-8 as the rest of server/text sees it: strict validation of what comes in, and a lossy reading
// of byte sequences that arrive in pieces.
#ifndef HANMO_SERVER_TEXT_UTF8_H_
#define HANMO_SERVER_TEXT_UTF8_H_

#include <cstddef>
#include <string>

#include "absl/strings/string_view.h"

namespace hanmo {

// Whether `text` is well-formed UTF-8 (Unicode 15, table 3-7: no surrogates, no overlong forms).
bool IsValidUtf8(absl::string_view text);

// Appends the well-formed characters of `bytes` to `out`, and U+FFFD for each maximal ill-formed
// part, as the WHATWG decoder and Rust's from_utf8_lossy do. Stops before an incomplete but so far
// well-formed character at the end; returns how many bytes were consumed.
size_t AppendUtf8(absl::string_view bytes, std::string* out);

inline constexpr char kReplacementCharacter[] = "\xEF\xBF\xBD";

}  // namespace hanmo

#endif  // HANMO_SERVER_TEXT_UTF8_H_
