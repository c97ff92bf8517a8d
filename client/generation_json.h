// Responses as scripts read them: names of the contract, durations in seconds.
#ifndef HANMO_CLIENT_GENERATION_JSON_H_
#define HANMO_CLIENT_GENERATION_JSON_H_

#include <string>
#include <vector>

#include "google/protobuf/duration.pb.h"
#include "hanmo/v1/generation.pb.h"
#include "nlohmann/json.hpp"

namespace hanmo {

double Seconds(const google::protobuf::Duration& duration);

// "eos", "stop" or "length".
std::string FinishReasonName(hanmo::v1::FinishReason reason);

// A text or a picture without its data; `file` is where the picture went, empty for texts.
nlohmann::ordered_json OutputJson(const hanmo::v1::Output& output, const std::string& file);

// The whole response. With one output its fields stand at the top; several are in "outputs".
// `files` has the pictures' files in order of the outputs, or is empty.
nlohmann::ordered_json ResponseJson(const hanmo::v1::GenerateResponse& response,
                                    const std::vector<std::string>& files);

// A line of --json-lines: "event" and its fields, without picture data. Not for `final`.
nlohmann::ordered_json EventJson(const hanmo::v1::GenerateStreamResponse& event);

}  // namespace hanmo

#endif  // HANMO_CLIENT_GENERATION_JSON_H_
