// From the answers of our own contract to the tensors of a ModelInferResponse, all of them raw.
#ifndef HANMO_SERVER_OPEN_INFERENCE_INFER_RESPONSE_H_
#define HANMO_SERVER_OPEN_INFERENCE_INFER_RESPONSE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "hanmo/v1/generation.pb.h"
#include "inference/grpc_service.pb.h"
#include "server/open_inference/infer_request.h"

namespace hanmo {

// What one prompt has become.
struct PromptResult {
  hanmo::v1::GenerateResponse response;
  std::vector<std::string> pixels;  // by output; empty where nobody asked for them
};

// The wanted tensors of all prompts, each of which has as many outputs.
void AddOutputs(const InferPlan& plan, absl::Span<const PromptResult> prompts,
                inference::ModelInferResponse* response);

// For streams: tensors of one output, with the parameter `index`, its place among all of them.

// New text. The tensors are absent where there is nothing new in them.
void AddTextDelta(const InferPlan& plan, uint32_t index, const std::string& text,
                  absl::Span<const uint32_t> token_ids, inference::ModelInferResponse* response);
void AddStep(const InferPlan& plan, uint32_t index, uint32_t step, uint32_t steps,
             inference::ModelInferResponse* response);
// How a text ended; its words came before.
void AddTextEnd(const InferPlan& plan, uint32_t index, const hanmo::v1::Text& text,
                inference::ModelInferResponse* response);
void AddPicture(const InferPlan& plan, uint32_t index, const hanmo::v1::Picture& picture,
                const std::string& pixels, inference::ModelInferResponse* response);

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_INFER_RESPONSE_H_
