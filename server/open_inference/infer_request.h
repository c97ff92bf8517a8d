// From a ModelInferRequest to the requests of our own contract, one for each prompt in it.
#ifndef HANMO_SERVER_OPEN_INFERENCE_INFER_REQUEST_H_
#define HANMO_SERVER_OPEN_INFERENCE_INFER_REQUEST_H_

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "hanmo/v1/generation.pb.h"
#include "inference/grpc_service.pb.h"
#include "server/open_inference/model_tensors.h"
#include "server/repository.h"

namespace hanmo {

struct InferPlan {
  InferTask task = InferTask::kWrite;
  // 1 to kMaxPrompts, in the order of the prompts. Ranges are not checked yet: PlanFromProto does.
  std::vector<hanmo::v1::GenerateRequest> requests;
  // The prompts had a dimension of their own, so outputs are [prompts, n] instead of [prompts * n].
  bool batched = false;
  std::vector<std::string> outputs;  // names, each once
  absl::Duration timeout = absl::InfiniteDuration();
  bool stream = true;
  // Asked for: a stream's last response then has no tensors.
  bool empty_final_response = false;

  bool Wants(absl::string_view output) const;
};

// What the request asks of a model of this kind.
InferTask TaskOf(const inference::ModelInferRequest& proto, ModelKind kind);

// INVALID_ARGUMENT names the tensor or the parameter and what it must be. Never fails otherwise.
absl::StatusOr<InferPlan> PlanInfer(const inference::ModelInferRequest& proto, InferTask task);

// The same error with the names that this protocol has for the fields of ours; `prompt` is the
// place of the prompt it is about, where there are several.
absl::Status WithTensorNames(const absl::Status& status, InferTask task,
                             std::optional<size_t> prompt);

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_INFER_REQUEST_H_
