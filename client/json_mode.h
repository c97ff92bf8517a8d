// What stdout gets.
#ifndef HANMO_CLIENT_JSON_MODE_H_
#define HANMO_CLIENT_JSON_MODE_H_

#include <string>

#include "nlohmann/json.hpp"

namespace hanmo {

enum class JsonMode {
  kOff,    // for people
  kOne,    // --json: one object at the end
  kLines,  // --json-lines: one object a line for each event
};

// On one line; bytes that are no UTF-8 become U+FFFD.
inline std::string JsonLine(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace hanmo

#endif  // HANMO_CLIENT_JSON_MODE_H_
