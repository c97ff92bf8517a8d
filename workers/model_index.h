// A pipeline's model_index.json: which class each component is of.
#ifndef HANMO_WORKERS_MODEL_INDEX_H_
#define HANMO_WORKERS_MODEL_INDEX_H_

#include <nlohmann/json.hpp>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace hanmo {

// NOT_FOUND names the file.
absl::StatusOr<std::string> ReadText(const std::string& path);

// Also INVALID_ARGUMENT where it is no JSON object.
absl::StatusOr<nlohmann::json> ReadObject(const std::string& path);

// The "_class_name"; empty when absent.
std::string PipelineClassOf(const nlohmann::json& index);

// The class in an entry such as "unet": ["diffusers", "UNet2DConditionModel"]; empty when absent.
std::string ClassOf(const nlohmann::json& index, const char* component);

// INVALID_ARGUMENT names the component and both classes.
absl::Status RequireClass(const nlohmann::json& index, const char* component, const char* expected);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODEL_INDEX_H_
