// The schema of the configuration: one row per option.
#ifndef HANMO_SERVER_CONFIG_OPTIONS_H_
#define HANMO_SERVER_CONFIG_OPTIONS_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "server/config.h"

namespace hanmo {

// The field's type decides how a value is written: byte counts take KiB, MiB, GiB; durations take
// ms, s, m, h; lists are comma-separated in the environment and on the `devices` flag, and repeated
// flags or YAML sequences elsewhere.
using ConfigField =
    std::variant<std::string Config::*, bool Config::*, uint32_t Config::*, uint64_t Config::*,
                 absl::Duration Config::*, std::vector<std::string> Config::*>;

struct ConfigOption {
  absl::string_view group;
  absl::string_view name;   // as the flag without dashes and as the file's key
  absl::string_view value;  // placeholder in --help
  ConfigField field;
  absl::string_view help;
  // Inclusive; numbers as they are, bytes in bytes, durations in seconds.
  double min = 0;
  double max = 0;
  std::vector<absl::string_view> choices = {};  // texts only; empty allows any
};

absl::Span<const ConfigOption> ConfigOptions();
// Null when there is none.
const ConfigOption* FindConfigOption(absl::string_view name);

// "max-message-bytes" → "HANMO_MAX_MESSAGE_BYTES".
std::string EnvironmentName(const ConfigOption& option);

// Sets the field from its text. For lists, `append` adds one entry as it stands; otherwise the text
// is split at commas and replaces the list.
absl::Status SetConfigValue(const ConfigOption& option, absl::string_view text, bool append,
                            Config* config);
// The field's value as SetConfigValue reads it.
std::string ConfigValue(const ConfigOption& option, const Config& config);
// "1 to 64", "one of json, text", or empty.
std::string ConfigRange(const ConfigOption& option);

}  // namespace hanmo

#endif  // HANMO_SERVER_CONFIG_OPTIONS_H_
