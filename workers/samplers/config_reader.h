// Typed access to the keys of one scheduler_config.json, with errors that name the key.
#pragma once

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace hanmo {

// Reads the keys that one scheduler class has. The first problem is kept and reading goes on, so
// that callers read all fields and look at status() once. Lives shorter than the JSON it reads.
class ConfigReader {
 public:
  // `keys`: what the class's constructor takes; other keys of the file count as absent.
  ConfigReader(const nlohmann::json& file, std::vector<absl::string_view> keys);

  // Each overwrites `value` if the key is present. Numbers accept the strings "Infinity",
  // "-Infinity" and "NaN"; a null bool is false, as in Python; a null optional is absent.
  void Read(absl::string_view key, bool& value);
  void Read(absl::string_view key, int& value);
  void Read(absl::string_view key, double& value);
  void Read(absl::string_view key, std::optional<double>& value);
  void Read(absl::string_view key, std::vector<double>& value);
  void Read(absl::string_view key, std::vector<int>& value);

  // Reads a string that must be one of `choices`.
  template <typename Choice>
  void ReadChoice(absl::string_view key,
                  std::initializer_list<std::pair<absl::string_view, Choice>> choices,
                  Choice& value) {
    const nlohmann::json* found = Find(key);
    if (found == nullptr) return;
    std::string names;
    for (const auto& [name, choice] : choices) {
      if (found->is_string() && found->get_ref<const std::string&>() == name) {
        value = choice;
        return;
      }
      absl::StrAppend(&names, names.empty() ? "" : ", ", name);
    }
    Reject(key, absl::StrCat("one of ", names));
  }

  // Refuses the key unless it is absent, null, false or empty.
  void RejectIfSet(absl::string_view key);
  // Records that `key` has a value that is not `wanted`.
  void Reject(absl::string_view key, absl::string_view wanted);

  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json* Find(absl::string_view key) const;
  std::optional<double> Number(const nlohmann::json& value) const;

  const nlohmann::json& file_;
  std::vector<absl::string_view> keys_;
  absl::Status status_;
};

}  // namespace hanmo
