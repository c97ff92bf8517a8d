// What crosses the C ABI of bridge/, taken into C++ ownership.
#ifndef HANMO_SERVER_TEXT_BRIDGE_RESULT_H_
#define HANMO_SERVER_TEXT_BRIDGE_RESULT_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "bridge/hanmo_bridge.h"

namespace hanmo {

struct FreeBridgeString {
  void operator()(char* string) const { hanmo_bridge_free_string(string); }
};
using BridgeString = std::unique_ptr<char, FreeBridgeString>;

inline std::string TakeMessage(char* message) {
  const BridgeString owned(message);
  return owned ? owned.get() : "out of memory";
}

// INVALID_ARGUMENT "<subject>: <message>"; takes the message over. Everything the bridge refuses is
// somebody's input: a file of a checkpoint or a text.
inline absl::Status BridgeError(absl::string_view subject, char* message) {
  return absl::InvalidArgumentError(absl::StrCat(subject, ": ", TakeMessage(message)));
}

}  // namespace hanmo

#endif  // HANMO_SERVER_TEXT_BRIDGE_RESULT_H_
