// Which tensors our models have: the one table behind ModelMetadata, ModelConfig and every request.
#ifndef HANMO_SERVER_OPEN_INFERENCE_MODEL_TENSORS_H_
#define HANMO_SERVER_OPEN_INFERENCE_MODEL_TENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"
#include "hanmo/v1/generation.pb.h"
#include "server/repository.h"

namespace hanmo {

// Prompts in one request at most; each is a request to the batcher.
inline constexpr uint32_t kMaxPrompts = 64;

// What a request asks for, which says what tensors it has.
enum class InferTask {
  kWrite,          // texts from words
  kPaint,          // pictures from words
  kPaintByTokens,  // the same by a model that has no denoising steps
  kCaption,        // texts about pictures
};

// The tensor with the prompts; texts may come as token ids instead, and those about pictures may
// have it for the words that they begin with.
inline constexpr absl::string_view kTextInput = "text_input";
inline constexpr absl::string_view kInputIds = "input_ids";
inline constexpr absl::string_view kPrompt = "prompt";
// On a stream: false sends results only when they are whole.
inline constexpr absl::string_view kStream = "stream";
// Pixels are large: they come only when asked for by name.
inline constexpr absl::string_view kPixels = "pixels";
// An encoded file: what is painted, or what a text is to be about.
inline constexpr absl::string_view kImage = "image";
// Only with best_of, and so only when asked for.
inline constexpr absl::string_view kScore = "score";

struct TensorSpec {
  std::string name;
  absl::string_view datatype;
  // The first dimension is that of the prompts; -1 is any size.
  std::vector<int64_t> shape;
};

// Of a model's tasks the first is that of a request without a picture.
std::vector<InferTask> TasksOf(ModelKind kind);
// Whether its outputs are texts.
bool Writes(InferTask task);

absl::string_view PromptTensor(InferTask task);

// A parameter of the task by the name of its tensor, which is the name of its field in
// TextParameters, in its guide, or in PictureParameters; null when it has none of that name.
const google::protobuf::FieldDescriptor* ParameterField(InferTask task, absl::string_view name);
// Whether the field says what a text must match: a request has one such field at most.
bool IsOfGuide(const google::protobuf::FieldDescriptor& field);
// The message of `request` that has the field, made if it is not there.
google::protobuf::Message* OwnerOf(const google::protobuf::FieldDescriptor& field,
                                   hanmo::v1::GenerateRequest* request);

std::vector<TensorSpec> InputsOf(InferTask task);
std::vector<TensorSpec> OutputsOf(InferTask task);
// Those of all tasks, each once.
std::vector<TensorSpec> InputsOf(ModelKind kind);
std::vector<TensorSpec> OutputsOf(ModelKind kind);
// Names of those that a request gets which names none.
std::vector<std::string> DefaultOutputsOf(InferTask task);

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_MODEL_TENSORS_H_
