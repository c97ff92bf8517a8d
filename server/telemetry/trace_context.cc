#include <algorithm>

#include "server/telemetry/tracer.h"

namespace hanmo {
namespace {

bool IsHex(absl::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

bool IsZero(absl::string_view text) { return text.find_first_not_of('0') == text.npos; }

}  // namespace

// https://www.w3.org/TR/trace-context/#traceparent-header: version-trace-parent-flags. Of a version
// that is not known yet, more may follow.
absl::string_view TraceIdOf(absl::string_view text) {
  if (text.size() < 55 || text[2] != '-' || text[35] != '-' || text[52] != '-') return {};
  const absl::string_view version = text.substr(0, 2), trace = text.substr(3, 32);
  const absl::string_view parent = text.substr(36, 16), flags = text.substr(53, 2);
  if (!IsHex(version) || !IsHex(trace) || !IsHex(parent) || !IsHex(flags)) return {};
  if (version == "ff" || IsZero(trace) || IsZero(parent)) return {};
  if (text.size() > 55 && (version == "00" || text[55] != '-')) return {};
  return trace;
}

}  // namespace hanmo
