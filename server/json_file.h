// A configuration file of a checkpoint, read with checks: what is missing, of another type or out
// of range ends in a status that names the file and the key.
#ifndef HANMO_SERVER_JSON_FILE_H_
#define HANMO_SERVER_JSON_FILE_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace hanmo {

// A JSON object with type- and range-checked access. The first fault is kept; later reads return
// defaults, so that callers check once at the end.
class JsonFile {
 public:
  // A missing file reads as an empty object unless it is required. Files above 16 MiB are refused.
  JsonFile(const std::filesystem::path& folder, const std::string& name, bool required);

  const absl::Status& status() const { return status_; }

  void Fail(absl::string_view what);

  // From now on keys are those of the object below `key`; fails when there is none.
  void Enter(const std::string& key);

  // Null when the key is absent or null.
  const nlohmann::json* Find(const std::string& key) const;
  double Number(const std::string& key, double fallback, double min, double max);
  // Integers from 1 on, of which one of `keys` must be present.
  uint32_t Count(const std::vector<std::string>& keys);
  // Empty when absent or no text.
  std::string Text(const std::string& key) const;
  // One id or a list of them; empty when absent.
  std::vector<uint32_t> Ids(const std::string& key);

 private:
  std::string name_;
  nlohmann::json root_ = nlohmann::json::object();
  absl::Status status_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_JSON_FILE_H_
