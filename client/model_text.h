// Models as people and as scripts read them.
#ifndef HANMO_CLIENT_MODEL_TEXT_H_
#define HANMO_CLIENT_MODEL_TEXT_H_

#include <cstdint>
#include <string>

#include "hanmo/v1/models.pb.h"
#include "nlohmann/json.hpp"

namespace hanmo {

// A table with a line for each version: name, version and its labels, state, tasks.
std::string ListText(const hanmo::v1::ListModelsResponse& response);
nlohmann::ordered_json ListJson(const hanmo::v1::ListModelsResponse& response);

// A line for each thing known; what the server did not tell is left out.
std::string DescriptionText(const hanmo::v1::DescribeModelResponse& model);
nlohmann::ordered_json DescriptionJson(const hanmo::v1::DescribeModelResponse& model);

// "1.5 MiB"
std::string BytesText(uint64_t bytes);

}  // namespace hanmo

#endif  // HANMO_CLIENT_MODEL_TEXT_H_
