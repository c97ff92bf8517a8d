// Collects what is wrong with a request, field by field.
#ifndef HANMO_SERVER_RPC_VIOLATIONS_H_
#define HANMO_SERVER_RPC_VIOLATIONS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace hanmo {

// google.rpc details ride in absl::Status as payloads under their type's URL.
inline constexpr absl::string_view kBadRequestUrl = "type.googleapis.com/google.rpc.BadRequest";
inline constexpr absl::string_view kRetryInfoUrl = "type.googleapis.com/google.rpc.RetryInfo";

class Violations {
 public:
  // `field` is the path in the request, "text.temperature" say; `description` tells the allowed
  // range. Neither may quote the request's texts.
  void Add(absl::string_view field, absl::string_view description);
  // Adds "must be <range>, got <value>" unless min <= value <= max; NaN is never within.
  void CheckRange(absl::string_view field, double value, double min, double max);
  // The same for (0, max]: what divides or selects must not be zero.
  void CheckPositive(absl::string_view field, double value, double max);

  bool empty() const { return violations_.empty(); }
  // INVALID_ARGUMENT with google.rpc.BadRequest; OK when empty.
  absl::Status ToStatus() const;

 private:
  std::vector<std::pair<std::string, std::string>> violations_;
};

// INVALID_ARGUMENT for one field.
absl::Status FieldError(absl::string_view field, absl::string_view description);

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_VIOLATIONS_H_
