// gRPC's status codes as labels.
#ifndef HANMO_SERVER_TELEMETRY_STATUS_CODES_H_
#define HANMO_SERVER_TELEMETRY_STATUS_CODES_H_

#include <cstddef>
#include <string>

#include "absl/status/status.h"

namespace hanmo {

inline constexpr size_t kCodes = 17;

// Below kCodes; codes that do not exist are UNKNOWN.
inline size_t CodeIndex(absl::StatusCode code) {
  const auto index = static_cast<size_t>(code);
  return index < kCodes ? index : static_cast<size_t>(absl::StatusCode::kUnknown);
}

inline std::string CodeName(size_t index) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(index));
}

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_STATUS_CODES_H_
