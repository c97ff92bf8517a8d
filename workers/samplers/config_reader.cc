#include "workers/samplers/config_reader.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace hanmo {

ConfigReader::ConfigReader(const nlohmann::json& file, std::vector<absl::string_view> keys)
    : file_(file), keys_(std::move(keys)) {
  // diffusers drops the keys that were only defaults of the class that wrote the file.
  const auto defaults = file_.find("_use_default_values");
  if (defaults == file_.end() || !defaults->is_array()) return;
  std::erase_if(keys_, [&](absl::string_view key) {
    return std::any_of(defaults->begin(), defaults->end(), [&](const nlohmann::json& name) {
      return name.is_string() && name.get_ref<const std::string&>() == key;
    });
  });
}

const nlohmann::json* ConfigReader::Find(absl::string_view key) const {
  if (std::find(keys_.begin(), keys_.end(), key) == keys_.end()) return nullptr;
  const auto found = file_.find(std::string(key));
  return found == file_.end() ? nullptr : &*found;
}

void ConfigReader::Reject(absl::string_view key, absl::string_view wanted) {
  if (!status_.ok()) return;
  std::string found = file_.contains(std::string(key)) ? file_[std::string(key)].dump() : "nothing";
  if (found.size() > 60) found = absl::StrCat(found.substr(0, 57), "...");
  status_ = absl::InvalidArgumentError(
      absl::StrCat("scheduler_config.json: ", key, " must be ", wanted, ", found ", found));
}

std::optional<double> ConfigReader::Number(const nlohmann::json& value) const {
  if (value.is_number()) return value.get<double>();
  if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    if (text == "Infinity") return std::numeric_limits<double>::infinity();
    if (text == "-Infinity") return -std::numeric_limits<double>::infinity();
    if (text == "NaN") return std::nan("");
  }
  return std::nullopt;
}

void ConfigReader::Read(absl::string_view key, bool& value) {
  const nlohmann::json* found = Find(key);
  if (found == nullptr) return;
  if (found->is_null()) {
    value = false;
  } else if (found->is_boolean()) {
    value = found->get<bool>();
  } else {
    Reject(key, "true or false");
  }
}

void ConfigReader::Read(absl::string_view key, int& value) {
  const nlohmann::json* found = Find(key);
  if (found == nullptr) return;
  const std::optional<double> number = Number(*found);
  // A float that is whole (50.0) is how some tools write integers.
  if (number && *number == std::floor(*number) && std::abs(*number) < 1e9) {
    value = static_cast<int>(*number);
  } else {
    Reject(key, "an integer");
  }
}

void ConfigReader::Read(absl::string_view key, double& value) {
  const nlohmann::json* found = Find(key);
  if (found == nullptr) return;
  const std::optional<double> number = Number(*found);
  if (number && !std::isnan(*number)) {
    value = *number;
  } else {
    Reject(key, "a number");
  }
}

void ConfigReader::Read(absl::string_view key, std::optional<double>& value) {
  const nlohmann::json* found = Find(key);
  if (found == nullptr || found->is_null()) return;
  double number = 0;
  Read(key, number);
  value = number;
}

void ConfigReader::Read(absl::string_view key, std::vector<double>& value) {
  const nlohmann::json* found = Find(key);
  if (found == nullptr || found->is_null()) return;
  if (!found->is_array() || !std::all_of(found->begin(), found->end(),
                                         [](const auto& item) { return item.is_number(); })) {
    Reject(key, "a list of numbers");
    return;
  }
  value = found->get<std::vector<double>>();
}

void ConfigReader::Read(absl::string_view key, std::vector<int>& value) {
  std::vector<double> numbers;
  Read(key, numbers);
  for (double number : numbers) {
    if (number != std::floor(number) || std::abs(number) >= 1e9) {
      Reject(key, "a list of integers");
      return;
    }
    value.push_back(static_cast<int>(number));
  }
}

void ConfigReader::RejectIfSet(absl::string_view key) {
  const nlohmann::json* found = Find(key);
  if (found == nullptr || found->is_null() || *found == false || found->empty()) return;
  Reject(key, "absent, null or false (not supported)");
}

}  // namespace hanmo
