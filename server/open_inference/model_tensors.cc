#include "server/open_inference/model_tensors.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/types/span.h"
#include "hanmo/v1/generation.pb.h"

namespace hanmo {
namespace {

using google::protobuf::FieldDescriptor;

// Ranges and defaults are those of the fields: see generation.proto.
constexpr absl::string_view kWritten[] = {"max_tokens",
                                          "temperature",
                                          "top_k",
                                          "top_p",
                                          "min_p",
                                          "repetition_penalty",
                                          "presence_penalty",
                                          "frequency_penalty",
                                          "stop",
                                          "include_stop",
                                          "seed",
                                          "n",
                                          "min_tokens",
                                          "ignore_eos",
                                          "json_schema",
                                          "regex",
                                          "grammar",
                                          "choice"};
// Texts about pictures can't be guided.
constexpr absl::Span<const absl::string_view> kCaptioned =
    absl::MakeConstSpan(kWritten).first(std::size(kWritten) - 4);
constexpr absl::string_view kPainted[] = {"negative_prompt", "width",    "height", "steps",
                                          "min_steps",       "guidance", "seed",   "count",
                                          "best_of",         "sampler",  "format", "quality"};
constexpr absl::string_view kPaintedByTokens[] = {"width",  "height", "temperature", "top_k",
                                                  "top_p",  "seed",   "count",       "best_of",
                                                  "format", "quality"};

absl::Span<const absl::string_view> ParametersOf(InferTask task) {
  switch (task) {
    case InferTask::kWrite:
      return kWritten;
    case InferTask::kPaint:
      return kPainted;
    case InferTask::kPaintByTokens:
      return kPaintedByTokens;
    case InferTask::kCaption:
      return kCaptioned;
  }
  return {};
}

absl::string_view DatatypeOf(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      return "UINT32";
    case FieldDescriptor::CPPTYPE_UINT64:
      return "UINT64";
    case FieldDescriptor::CPPTYPE_FLOAT:
      return "FP32";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "BOOL";
    default:  // words, those of enums too
      return "BYTES";
  }
}

// Those of `tasks`, by a function that gives those of one.
std::vector<TensorSpec> Merged(const std::vector<InferTask>& tasks,
                               std::vector<TensorSpec> (*of)(InferTask)) {
  std::vector<TensorSpec> merged;
  for (const InferTask task : tasks) {
    for (TensorSpec& tensor : of(task)) {
      const bool there = std::any_of(merged.begin(), merged.end(), [&](const TensorSpec& other) {
        return other.name == tensor.name;
      });
      if (!there) merged.push_back(std::move(tensor));
    }
  }
  return merged;
}

}  // namespace

std::vector<InferTask> TasksOf(ModelKind kind) {
  switch (kind) {
    case ModelKind::kText:
      return {InferTask::kWrite};
    case ModelKind::kPicture:
      return {InferTask::kPaint};
    case ModelKind::kPictureTokens:
      return {InferTask::kPaintByTokens, InferTask::kCaption};
  }
  return {};
}

bool Writes(InferTask task) { return task == InferTask::kWrite || task == InferTask::kCaption; }

absl::string_view PromptTensor(InferTask task) {
  switch (task) {
    case InferTask::kWrite:
      return kTextInput;
    case InferTask::kCaption:
      return kImage;
    case InferTask::kPaint:
    case InferTask::kPaintByTokens:
      return kPrompt;
  }
  return {};
}

const FieldDescriptor* ParameterField(InferTask task, absl::string_view name) {
  const auto names = ParametersOf(task);
  if (std::find(names.begin(), names.end(), name) == names.end()) return nullptr;
  if (name == "choice") return hanmo::v1::Choice::descriptor()->FindFieldByName("texts");
  const bool writes = Writes(task);
  const auto* guide = hanmo::v1::Guide::descriptor()->FindFieldByName(std::string(name));
  if (writes && guide != nullptr) return guide;
  const auto* type =
      writes ? hanmo::v1::TextParameters::descriptor() : hanmo::v1::PictureParameters::descriptor();
  return type->FindFieldByName(std::string(name));
}

bool IsOfGuide(const FieldDescriptor& field) {
  return field.containing_type() == hanmo::v1::Guide::descriptor() ||
         field.containing_type() == hanmo::v1::Choice::descriptor();
}

google::protobuf::Message* OwnerOf(const FieldDescriptor& field,
                                   hanmo::v1::GenerateRequest* request) {
  if (field.containing_type() == hanmo::v1::PictureParameters::descriptor()) {
    return request->mutable_picture();
  }
  if (!IsOfGuide(field)) return request->mutable_text();
  hanmo::v1::Guide* guide = request->mutable_text()->mutable_guide();
  if (field.containing_type() == guide->GetDescriptor()) return guide;
  return guide->mutable_choice();
}

std::vector<TensorSpec> InputsOf(InferTask task) {
  std::vector<TensorSpec> tensors;
  tensors.push_back({std::string(PromptTensor(task)), "BYTES", {-1, 1}});
  if (task == InferTask::kWrite) tensors.push_back({std::string(kInputIds), "INT32", {-1, -1}});
  if (task == InferTask::kCaption) tensors.push_back({std::string(kTextInput), "BYTES", {-1, 1}});
  for (const absl::string_view name : ParametersOf(task)) {
    const FieldDescriptor& field = *ParameterField(task, name);
    tensors.push_back({std::string(name), DatatypeOf(field), {-1, field.is_repeated() ? -1 : 1}});
  }
  tensors.push_back({std::string(kStream), "BOOL", {-1, 1}});
  return tensors;
}

std::vector<TensorSpec> OutputsOf(InferTask task) {
  if (Writes(task)) {
    return {{"text_output", "BYTES", {-1, -1}},
            {"token_ids", "INT32", {-1, -1, -1}},
            {"finish_reason", "BYTES", {-1, -1}},
            {"seed", "UINT64", {-1, -1}}};
  }
  return {{std::string(kImage), "BYTES", {-1, -1}},
          {"seed", "UINT64", {-1, -1}},
          {"step", "UINT32", {-1, -1}},
          {"steps", "UINT32", {-1, -1}},
          {std::string(kScore), "FP32", {-1, -1}},
          {std::string(kPixels), "UINT8", {-1, -1, -1, -1, 3}}};
}

std::vector<TensorSpec> InputsOf(ModelKind kind) { return Merged(TasksOf(kind), InputsOf); }
std::vector<TensorSpec> OutputsOf(ModelKind kind) { return Merged(TasksOf(kind), OutputsOf); }

std::vector<std::string> DefaultOutputsOf(InferTask task) {
  std::vector<std::string> names;
  for (TensorSpec& tensor : OutputsOf(task)) {
    if (tensor.name != kPixels && tensor.name != kScore) names.push_back(std::move(tensor.name));
  }
  return names;
}

}  // namespace hanmo
