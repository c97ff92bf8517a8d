#include "workers/model_index.h"

#include <fstream>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/status_macros.h"

namespace hanmo {

absl::StatusOr<std::string> ReadText(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  return text.str();
}

absl::StatusOr<nlohmann::json> ReadObject(const std::string& path) {
  HANMO_ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  return absl::InvalidArgumentError(absl::StrCat(path, ": a JSON object expected"));
}

std::string PipelineClassOf(const nlohmann::json& index) {
  const auto name = index.find("_class_name");
  return name != index.end() && name->is_string() ? name->get<std::string>() : "";
}

std::string ClassOf(const nlohmann::json& index, const char* component) {
  const auto entry = index.find(component);
  if (entry == index.end() || !entry->is_array() || entry->size() != 2 ||
      !(*entry)[1].is_string()) {
    return "";
  }
  return (*entry)[1];
}

absl::Status RequireClass(const nlohmann::json& index, const char* component,
                          const char* expected) {
  const std::string found = ClassOf(index, component);
  if (found == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("model_index.json: ", component, ": \"", found,
                                                 "\" found, ", expected, " expected"));
}

}  // namespace hanmo
