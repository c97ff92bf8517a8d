#include "server/json_file.h"

#include <cmath>
#include <fstream>
#include <sstream>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace hanmo {
namespace {

// Larger than any published config; a runaway file must not fill the memory.
constexpr uintmax_t kMaxJsonBytes = 16 << 20;

// Python writes infinities and NaN into its JSON, which strict parsers refuse. No key that is read
// here has such a value: they become null.
std::string StrictJson(const std::string& text) {
  std::string strict;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (in_string && text[i] == '\\') {
      strict.push_back(text[i++]);
      if (i == text.size()) break;
    } else if (text[i] == '"') {
      in_string = !in_string;
    } else if (!in_string) {
      const absl::string_view rest = absl::string_view(text).substr(i);
      absl::string_view after = rest;
      if (absl::ConsumePrefix(&after, "-Infinity") || absl::ConsumePrefix(&after, "Infinity") ||
          absl::ConsumePrefix(&after, "NaN")) {
        strict += "null";
        i += rest.size() - after.size() - 1;
        continue;
      }
    }
    strict.push_back(text[i]);
  }
  return strict;
}

}  // namespace

JsonFile::JsonFile(const std::filesystem::path& folder, const std::string& name, bool required)
    : name_(name) {
  std::error_code error;
  const uintmax_t size = std::filesystem::file_size(folder / name, error);
  if (error) {
    if (required) Fail("is missing");
    return;
  }
  if (size > kMaxJsonBytes) {
    Fail("is larger than 16 MiB");
    return;
  }
  std::ifstream stream(folder / name, std::ios::binary);
  std::stringstream text;
  text << stream.rdbuf();
  root_ = nlohmann::json::parse(StrictJson(text.str()), nullptr, /*allow_exceptions=*/false);
  if (root_.is_discarded() || !root_.is_object()) Fail("is not a JSON object");
  if (!root_.is_object()) root_ = nlohmann::json::object();
}

void JsonFile::Fail(absl::string_view what) {
  if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(name_, " ", what));
}

void JsonFile::Enter(const std::string& key) {
  const nlohmann::json* section = Find(key);
  if (section == nullptr || !section->is_object()) return Fail(absl::StrCat("lacks ", key));
  root_ = nlohmann::json(*section);
  absl::StrAppend(&name_, ": ", key);
}

const nlohmann::json* JsonFile::Find(const std::string& key) const {
  const auto found = root_.find(key);
  return found == root_.end() || found->is_null() ? nullptr : &*found;
}

double JsonFile::Number(const std::string& key, double fallback, double min, double max) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return fallback;
  const double number = value->is_number() ? value->get<double>() : std::nan("");
  if (number >= min && number <= max) return number;
  Fail(absl::StrCat("has ", key, " outside ", min, " to ", max));
  return fallback;
}

uint32_t JsonFile::Count(const std::vector<std::string>& keys) {
  for (const std::string& key : keys) {
    if (Find(key) != nullptr) return static_cast<uint32_t>(Number(key, 0, 1, 1 << 28));
  }
  Fail(absl::StrCat("lacks ", keys[0]));
  return 0;
}

std::string JsonFile::Text(const std::string& key) const {
  const nlohmann::json* value = Find(key);
  return value != nullptr && value->is_string() ? value->get<std::string>() : "";
}

std::vector<uint32_t> JsonFile::Ids(const std::string& key) {
  std::vector<uint32_t> ids;
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return ids;
  const nlohmann::json list = value->is_array() ? *value : nlohmann::json::array({*value});
  for (const nlohmann::json& id : list) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > UINT32_MAX) {
      Fail(absl::StrCat("has a bad ", key));
      return {};
    }
    ids.push_back(id.get<uint32_t>());
  }
  return ids;
}

}  // namespace hanmo
