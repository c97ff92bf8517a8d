#include "server/config.h"

#include <set>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "re2/re2.h"
#include "server/config_options.h"
#include "yaml-cpp/yaml.h"

namespace hanmo {
namespace {

constexpr char kSeeHelp[] = "; --help lists the options";

absl::Status At(absl::string_view place, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(place, ": ", status.message()));
}

bool IsList(const ConfigOption& option) {
  return std::holds_alternative<std::vector<std::string> Config::*>(option.field);
}

absl::Status SetFromYaml(const ConfigOption& option, const YAML::Node& node, Config* config) {
  if (node.IsSequence() && IsList(option)) {
    config->*std::get<std::vector<std::string> Config::*>(option.field) = {};
    for (const YAML::Node& entry : node) {
      if (!entry.IsScalar()) return absl::InvalidArgumentError("must be a list of texts");
      if (auto status = SetConfigValue(option, entry.Scalar(), true, config); !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }
  if (!node.IsScalar()) {
    return absl::InvalidArgumentError(IsList(option) ? "must be a list of texts"
                                                     : "must be one value");
  }
  return SetConfigValue(option, node.Scalar(), false, config);
}

absl::Status ReadFile(const std::string& path, Config* config) {
  YAML::Node root;
  // yaml-cpp reports a missing file and bad syntax by exceptions only.
  try {
    root = YAML::LoadFile(path);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("--config ", path, ": ", error.what()));
  }
  if (root.IsNull()) return absl::OkStatus();
  if (!root.IsMap()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--config ", path, ": must be a map of options"));
  }
  std::set<std::string> seen;
  for (const auto& entry : root) {
    const std::string key = entry.first.IsScalar() ? entry.first.Scalar() : "";
    const std::string place =
        absl::StrCat(path, ":", entry.first.Mark().line + 1, ": \"", key, "\"");
    const ConfigOption* option = FindConfigOption(key);
    if (option == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": unknown option", kSeeHelp));
    }
    if (!seen.insert(key).second) {
      return absl::InvalidArgumentError(absl::StrCat(place, ": given twice"));
    }
    if (auto status = At(place, SetFromYaml(*option, entry.second, config)); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

// Kubernetes puts the addresses of services into every container of their namespace; a service
// named hanmo-something yields names that begin like ours.
bool IsServiceLink(const std::string& name) {
  static const auto& pattern = *new RE2(
      "HANMO(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|"
      "PORT(_[0-9]+_(TCP|UDP|SCTP)(_[A-Z]+)?)?)");
  return RE2::FullMatch(name, pattern);
}

absl::Status ReadEnvironment(const std::vector<std::pair<std::string, std::string>>& environment,
                             Config* config) {
  for (const auto& [name, value] : environment) {
    if (!absl::StartsWith(name, "HANMO_") || name == "HANMO_CONFIG") continue;
    // The command line's: where it calls. Both programs run in one shell.
    if (name == "HANMO_SERVER") continue;
    const ConfigOption* found = nullptr;
    for (const ConfigOption& option : ConfigOptions()) {
      if (EnvironmentName(option) == name) found = &option;
    }
    if (found == nullptr) {
      if (IsServiceLink(name)) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("environment ", name, ": unknown option", kSeeHelp));
    }
    if (auto status = At(name, SetConfigValue(*found, value, false, config)); !status.ok()) {
      return status;
    }
  }
  return absl::OkStatus();
}

// One flag as it stands on the command line.
struct Flag {
  const ConfigOption* option = nullptr;  // null for the actions and --config
  std::string name;
  std::string value;
};

absl::StatusOr<std::vector<Flag>> SplitFlags(const std::vector<std::string>& arguments) {
  std::vector<Flag> flags;
  for (size_t i = 0; i < arguments.size(); ++i) {
    absl::string_view argument = arguments[i];
    if (!absl::ConsumePrefix(&argument, "--") || argument.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", arguments[i], "\": expected --option", kSeeHelp));
    }
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(argument, absl::MaxSplits('=', 1));
    const bool has_value = absl::StrContains(argument, "=");
    Flag flag{FindConfigOption(parts.first), parts.first, parts.second};
    const bool action =
        parts.first == "help" || parts.first == "version" || parts.first == "print-config";
    const bool is_bool =
        flag.option != nullptr && std::holds_alternative<bool Config::*>(flag.option->field);
    if (flag.option == nullptr && !action && parts.first != "config") {
      return absl::InvalidArgumentError(
          absl::StrCat("--", parts.first, ": unknown option", kSeeHelp));
    }
    if (action && has_value) {
      return absl::InvalidArgumentError(absl::StrCat("--", parts.first, ": takes no value"));
    }
    if (is_bool && !has_value) flag.value = "true";
    if (!action && !is_bool && !has_value) {
      if (++i == arguments.size()) {
        return absl::InvalidArgumentError(absl::StrCat("--", parts.first, ": needs a value"));
      }
      flag.value = arguments[i];
    }
    flags.push_back(std::move(flag));
  }
  return flags;
}

absl::Status ReadFlags(const std::vector<Flag>& flags, CommandLine* line) {
  std::set<std::string> seen;
  for (const Flag& flag : flags) {
    if (flag.name == "help") line->action = ConfigAction::kHelp;
    if (flag.name == "version") line->action = ConfigAction::kVersion;
    if (flag.name == "print-config") line->action = ConfigAction::kPrintConfig;
    if (flag.option == nullptr) continue;
    const bool first = seen.insert(flag.name).second;
    // The first of a repeated flag replaces what file and environment said.
    const bool append = IsList(*flag.option) && flag.name != "devices";
    if (append && first) {
      line->config.*std::get<std::vector<std::string> Config::*>(flag.option->field) = {};
    }
    absl::Status status = SetConfigValue(*flag.option, flag.value, append, &line->config);
    if (!status.ok()) return At(absl::StrCat("--", flag.name), status);
  }
  return absl::OkStatus();
}

// gRPC takes port 99999 for 34463, its remainder.
absl::Status CheckPort(absl::string_view address) {
  if (address.empty() || absl::StartsWith(address, "unix:")) return absl::OkStatus();
  const size_t colon = address.rfind(':');
  uint32_t port = 0;
  if (colon != address.npos && absl::SimpleAtoi(address.substr(colon + 1), &port) &&
      port <= 65535) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("must be HOST:PORT with a port from 0 to 65535, got \"", address, "\""));
}

// What one field alone cannot tell.
absl::Status CheckTogether(const Config& config) {
  if (config.tls_cert.empty() != config.tls_key.empty()) {
    return absl::InvalidArgumentError("--tls-cert and --tls-key: give both or none");
  }
  if (config.worker_tls_cert.empty() != config.worker_tls_key.empty()) {
    return absl::InvalidArgumentError("--worker-tls-cert and --worker-tls-key: give both or none");
  }
  if (!config.tls_client_ca.empty() && config.tls_cert.empty()) {
    return absl::InvalidArgumentError("--tls-client-ca: needs --tls-cert and --tls-key");
  }
  for (const std::string& device : config.devices) {
    if (!RE2::FullMatch(device, "auto|cpu|cuda:[0-9]{1,3}")) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--devices: must be auto, cpu or cuda:N, separated by commas, got \"", device, "\""));
    }
  }
  for (const std::string& entry : config.tenant_weight) {
    if (auto weight = ParseTenantWeight(entry); !weight.ok()) {
      return At("--tenant-weight", weight.status());
    }
  }
  std::set<std::pair<std::string, std::string>> labels;
  for (const std::string& entry : config.label) {
    const auto label = ParseVersionLabel(entry);
    if (!label.ok()) return At("--label", label.status());
    if (!labels.emplace(label->model, label->label).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("--label: ", label->model, ":", label->label, " is given twice"));
    }
  }
  if (config.devices.empty()) return absl::InvalidArgumentError("--devices: must not be empty");
  if (config.model_repository.empty()) {
    return absl::InvalidArgumentError("--model-repository: is required");
  }
  if (config.listen.empty()) return absl::InvalidArgumentError("--listen: must not be empty");
  if (auto status = CheckPort(config.listen); !status.ok()) return At("--listen", status);
  return At("--metrics-listen", CheckPort(config.metrics_listen));
}

}  // namespace

absl::StatusOr<std::pair<std::string, double>> ParseTenantWeight(absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits('=', 1));
  double weight = 0;
  if (!RE2::FullMatch(std::string(parts.first), "[A-Za-z0-9._-]{0,128}") ||
      !absl::SimpleAtod(parts.second, &weight) || !(weight >= 0.001 && weight <= 1000)) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be NAME=WEIGHT with a weight from 0.001 to 1000, got \"", text, "\""));
  }
  return std::make_pair(std::string(parts.first), weight);
}

absl::StatusOr<VersionLabel> ParseVersionLabel(absl::string_view text) {
  VersionLabel label;
  if (!RE2::FullMatch(std::string(text),
                      "([A-Za-z0-9._-]{1,128}):([A-Za-z][A-Za-z0-9._-]{0,63})=([0-9]+)",
                      &label.model, &label.label, &label.version) ||
      label.version == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be NAME:LABEL=VERSION with a label of 1 to 64 of [A-Za-z0-9._-], "
                     "beginning with a letter, and a version from 1, got \"",
                     text, "\""));
  }
  return label;
}

absl::StatusOr<CommandLine> ParseCommandLine(
    const std::vector<std::string>& arguments,
    const std::vector<std::pair<std::string, std::string>>& environment) {
  CommandLine line;
  absl::StatusOr<std::vector<Flag>> flags = SplitFlags(arguments);
  if (!flags.ok()) return flags.status();

  std::string file;
  for (const auto& [name, value] : environment) {
    if (name == "HANMO_CONFIG") file = value;
  }
  for (const Flag& flag : *flags) {
    if (flag.name == "config") file = flag.value;
  }
  if (!file.empty()) {
    if (auto status = ReadFile(file, &line.config); !status.ok()) return status;
  }
  if (auto status = ReadEnvironment(environment, &line.config); !status.ok()) return status;
  if (auto status = ReadFlags(*flags, &line); !status.ok()) return status;
  if (line.action == ConfigAction::kServe) {
    if (auto status = CheckTogether(line.config); !status.ok()) return status;
  }
  return line;
}

std::string ConfigHelp() {
  std::string help =
      "hanmo-server serves generative models over gRPC.\n\n"
      "Usage: hanmo-server --model-repository DIR [--option VALUE ...]\n\n"
      "Each option is also an environment variable and a key of the YAML file;\n"
      "flags go before the environment, the environment before the file.\n\n"
      "  --config FILE        read options from this YAML file (HANMO_CONFIG)\n"
      "  --print-config       print the effective options as YAML and exit\n"
      "  --version            print the version and exit\n"
      "  --help               print this and exit\n";
  const Config defaults;
  absl::string_view group;
  for (const ConfigOption& option : ConfigOptions()) {
    if (option.group != group) absl::StrAppend(&help, "\n", option.group, ":\n");
    group = option.group;
    const std::string range = ConfigRange(option);
    const std::string value = ConfigValue(option, defaults);
    absl::StrAppend(&help, "  --", option.name, " ", option.value, "\n      ", option.help, "\n");
    absl::StrAppend(&help, "      [", range, range.empty() ? "" : "; ",
                    value.empty() ? "no default" : absl::StrCat("default ", value), "; ",
                    EnvironmentName(option), "]\n");
  }
  return help;
}

std::string ConfigYaml(const Config& config) {
  YAML::Emitter yaml;
  yaml << YAML::BeginMap;
  for (const ConfigOption& option : ConfigOptions()) {
    yaml << YAML::Key << std::string(option.name) << YAML::Value;
    if (const auto* list = std::get_if<std::vector<std::string> Config::*>(&option.field)) {
      yaml << YAML::Flow << config.**list;
    } else {
      yaml << ConfigValue(option, config);
    }
  }
  yaml << YAML::EndMap;
  return absl::StrCat(yaml.c_str(), "\n");
}

}  // namespace hanmo
