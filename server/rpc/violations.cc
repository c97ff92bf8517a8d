#include "server/rpc/violations.h"

#include <cmath>
#include <cstdint>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"

namespace hanmo {
namespace {

// Whole numbers without an exponent.
std::string Number(double value) {
  if (std::abs(value) < 1e15 && value == std::trunc(value)) {
    return absl::StrCat(static_cast<int64_t>(value));
  }
  return absl::StrCat(value);
}

}  // namespace

void Violations::Add(absl::string_view field, absl::string_view description) {
  violations_.emplace_back(field, description);
}

void Violations::CheckRange(absl::string_view field, double value, double min, double max) {
  if (value >= min && value <= max) return;
  Add(field,
      absl::StrCat("must be in [", Number(min), ", ", Number(max), "], got ", Number(value)));
}

void Violations::CheckPositive(absl::string_view field, double value, double max) {
  if (value > 0 && value <= max) return;
  Add(field, absl::StrCat("must be in (0, ", Number(max), "], got ", value));
}

absl::Status Violations::ToStatus() const {
  if (violations_.empty()) return absl::OkStatus();
  google::rpc::BadRequest details;
  std::string message;
  for (const auto& [field, description] : violations_) {
    auto* violation = details.add_field_violations();
    violation->set_field(field);
    violation->set_description(description);
    absl::StrAppend(&message, message.empty() ? "" : "; ", field, ": ", description);
  }
  absl::Status status = absl::InvalidArgumentError(message);
  // Not from an rvalue: clang does not find that constructor in an abseil that gcc has built.
  const std::string bytes = details.SerializeAsString();
  status.SetPayload(kBadRequestUrl, absl::Cord(bytes));
  return status;
}

absl::Status FieldError(absl::string_view field, absl::string_view description) {
  Violations violations;
  violations.Add(field, description);
  return violations.ToStatus();
}

}  // namespace hanmo
