#include "server/open_inference/model_tensors.h"

#include <algorithm>
#include <iterator>

#include "hanmo/v1/generation.pb.h"

namespace hanmo {
namespace {

using google::protobuf::FieldDescriptor;

// Ranges and defaults are those of the fields: see generation.proto.
constexpr absl::string_view kTextParameters[] = {
    "max_tokens",       "temperature",       "top_k", "top_p",        "min_p", "repetition_penalty",
    "presence_penalty", "frequency_penalty", "stop",  "include_stop", "seed",  "n",
    "min_tokens",       "ignore_eos"};
constexpr absl::string_view kPictureParameters[] = {
    "negative_prompt", "width",   "height",  "steps",  "min_steps", "guidance", "seed",
    "count",           "best_of", "sampler", "format", "quality"};

template <size_t kCount>
bool Contains(const absl::string_view (&names)[kCount], absl::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
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

template <size_t kCount>
void AddParameters(ModelKind kind, const absl::string_view (&names)[kCount],
                   std::vector<TensorSpec>* tensors) {
  for (const absl::string_view name : names) {
    const FieldDescriptor& field = *ParameterField(kind, name);
    tensors->push_back({std::string(name), DatatypeOf(field), {-1, field.is_repeated() ? -1 : 1}});
  }
  tensors->push_back({std::string(kStream), "BOOL", {-1, 1}});
}

}  // namespace

absl::string_view PromptTensor(ModelKind kind) {
  return kind == ModelKind::kText ? kTextInput : kPrompt;
}

const FieldDescriptor* ParameterField(ModelKind kind, absl::string_view name) {
  const bool text = kind == ModelKind::kText;
  if (!(text ? Contains(kTextParameters, name) : Contains(kPictureParameters, name))) {
    return nullptr;
  }
  const auto* type =
      text ? hanmo::v1::TextParameters::descriptor() : hanmo::v1::PictureParameters::descriptor();
  return type->FindFieldByName(std::string(name));
}

std::vector<TensorSpec> InputsOf(ModelKind kind) {
  std::vector<TensorSpec> tensors;
  tensors.push_back({std::string(PromptTensor(kind)), "BYTES", {-1, 1}});
  if (kind == ModelKind::kText) {
    tensors.push_back({std::string(kInputIds), "INT32", {-1, -1}});
    AddParameters(kind, kTextParameters, &tensors);
  } else {
    AddParameters(kind, kPictureParameters, &tensors);
  }
  return tensors;
}

std::vector<TensorSpec> OutputsOf(ModelKind kind) {
  if (kind == ModelKind::kText) {
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

std::vector<std::string> DefaultOutputsOf(ModelKind kind) {
  std::vector<std::string> names;
  for (TensorSpec& tensor : OutputsOf(kind)) {
    if (tensor.name != kPixels && tensor.name != kScore) names.push_back(std::move(tensor.name));
  }
  return names;
}

}  // namespace hanmo
