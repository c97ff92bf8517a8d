// Which tensors our models have: the one table behind ModelMetadata, ModelConfig and every request.
#ifndef HANMO_SERVER_OPEN_INFERENCE_MODEL_TENSORS_H_
#define HANMO_SERVER_OPEN_INFERENCE_MODEL_TENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "server/repository.h"

namespace hanmo {

// Prompts in one request at most; each is a request to the batcher.
inline constexpr uint32_t kMaxPrompts = 64;

// The tensor with the prompts; texts may come as token ids instead.
inline constexpr absl::string_view kTextInput = "text_input";
inline constexpr absl::string_view kInputIds = "input_ids";
inline constexpr absl::string_view kPrompt = "prompt";
// On a stream: false sends results only when they are whole.
inline constexpr absl::string_view kStream = "stream";
// Pixels are large: they come only when asked for by name.
inline constexpr absl::string_view kPixels = "pixels";
inline constexpr absl::string_view kImage = "image";
// Only with best_of, and so only when asked for.
inline constexpr absl::string_view kScore = "score";

struct TensorSpec {
  std::string name;
  absl::string_view datatype;
  // The first dimension is that of the prompts; -1 is any size.
  std::vector<int64_t> shape;
};

absl::string_view PromptTensor(ModelKind kind);

// A parameter of the model by the name of its tensor, which is the name of its field in
// TextParameters or PictureParameters; null when it has none of that name.
const google::protobuf::FieldDescriptor* ParameterField(ModelKind kind, absl::string_view name);

std::vector<TensorSpec> InputsOf(ModelKind kind);
std::vector<TensorSpec> OutputsOf(ModelKind kind);
// Names of those that a request gets which names none.
std::vector<std::string> DefaultOutputsOf(ModelKind kind);

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_MODEL_TENSORS_H_
