// Text from elsewhere on its way to a terminal, and to the wire.
#ifndef HANMO_CLIENT_TERMINAL_TEXT_H_
#define HANMO_CLIENT_TERMINAL_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"

namespace hanmo {

// `text` with everything that could steer a terminal or disguise what it shows (control characters
// but line feed and tab, the controls of writing direction, bytes that are no UTF-8) shown as
// U+FFFD.
std::string SafeForTerminal(absl::string_view text);

// Well-formed UTF-8 as Unicode defines it: no overlong forms, no surrogates.
bool IsUtf8(absl::string_view text);

}  // namespace hanmo

#endif  // HANMO_CLIENT_TERMINAL_TEXT_H_
