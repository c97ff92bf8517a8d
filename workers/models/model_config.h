// Typed access to the keys of a model's config.json, with errors that name the key.
#ifndef HANMO_WORKERS_MODELS_MODEL_CONFIG_H_
#define HANMO_WORKERS_MODELS_MODEL_CONFIG_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace hanmo {

// Both ends are allowed.
struct Range {
  double min = 0;
  double max = 1e6;
};

// Keeps the first problem and reads on, so that callers read all fields and look at status() once.
// An absent key and a null are the default, as in the libraries that write these files. Lives
// shorter than the JSON it reads.
class ModelConfig {
 public:
  // `model` names the component in errors, and `file` what the keys are in.
  ModelConfig(const nlohmann::json& config, std::string model, std::string file = "config.json");

  int64_t Integer(absl::string_view key, int64_t absent, Range range = {1, 65536});
  double Real(absl::string_view key, double absent, Range range = {});
  bool Boolean(absl::string_view key, bool absent);
  std::string String(absl::string_view key, absl::string_view absent);
  // An array, or one value standing for `count` equal ones. Every element lies in `range`.
  std::vector<int64_t> Integers(absl::string_view key, size_t count, int64_t absent,
                                Range range = {1, 65536});
  std::vector<int64_t> IntegerList(absl::string_view key, const std::vector<int64_t>& absent,
                                   Range range = {1, 65536});
  std::vector<std::string> Strings(absl::string_view key, const std::vector<std::string>& absent);

  // The key is there and null, where that means something else than an absent one.
  bool IsNull(absl::string_view key) const;
  // Refuses the model unless the key is absent, null or `supported`.
  void Require(absl::string_view key, const nlohmann::json& supported);
  // Records a problem with a key.
  void Fail(absl::string_view key, absl::string_view problem);

  const absl::Status& status() const { return status_; }

 private:
  const nlohmann::json* Find(absl::string_view key) const;
  double Number(absl::string_view key, const nlohmann::json& value, Range range);

  const nlohmann::json& config_;
  const std::string origin_;  // component and file
  absl::Status status_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_MODEL_CONFIG_H_
