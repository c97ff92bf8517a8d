#include "server/open_inference/infer_request.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"
#include "google/rpc/error_details.pb.h"
#include "server/open_inference/input_tensors.h"
#include "server/open_inference/model_tensors.h"
#include "server/open_inference/parameter_values.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/violations.h"

namespace hanmo {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using hanmo::v1::GenerateRequest;
using inference::InferParameter;
using inference::ModelInferRequest;

// Triton's highest priority is 1 and its default 0; ours are 100 and 0.
constexpr int64_t kLowestPriority = 201;

absl::Status CheckId(absl::string_view name, absl::string_view id) {
  if (id.empty() || IsRequestId(id)) return absl::OkStatus();
  return FieldError(
      name, absl::StrCat("must be at most ", kMaxRequestIdBytes, " characters of [A-Za-z0-9._-]"));
}

// Reads one request; each method returns the first fault it finds.
class Planner {
 public:
  Planner(const ModelInferRequest& proto, InferTask task) : proto_(proto) { plan_.task = task; }

  absl::StatusOr<InferPlan> Plan() && {
    if (auto status = CheckId("id", proto_.id()); !status.ok()) return status;
    auto tensors = ReadTensors(proto_);
    if (!tensors.ok()) return tensors.status();
    if (auto status = ReadPrompts(*tensors); !status.ok()) return status;
    for (const InputTensor& tensor : *tensors) {
      if (auto status = ReadInput(tensor); !status.ok()) return status;
    }
    for (const auto& [name, parameter] : proto_.parameters()) {
      if (auto status = ReadParameter(name, parameter); !status.ok()) return status;
    }
    if (auto status = ReadOutputs(); !status.ok()) return status;
    for (GenerateRequest& request : plan_.requests) {
      request.set_model(proto_.model_name());
      request.set_request_id(proto_.id());
    }
    return std::move(plan_);
  }

 private:
  bool IsPrompts(absl::string_view name) const {
    return name == PromptTensor(plan_.task) ||
           (plan_.task == InferTask::kWrite && name == kInputIds);
  }

  Message* ParametersOf(GenerateRequest* request) const {
    return Writes(plan_.task) ? static_cast<Message*>(request->mutable_text())
                              : request->mutable_picture();
  }

  absl::Status SetPromptCount(const InputTensor& tensor, size_t count) {
    if (count < 1 || count > kMaxPrompts) {
      return FieldError(tensor.name(),
                        absl::StrCat("must be 1 to ", kMaxPrompts, " prompts, got ", count));
    }
    plan_.requests.resize(count);
    for (GenerateRequest& request : plan_.requests) ParametersOf(&request);
    plan_.batched = tensor.shape().size() == 2;
    return absl::OkStatus();
  }

  absl::Status ReadPrompts(const std::vector<InputTensor>& tensors) {
    const absl::string_view wanted = PromptTensor(plan_.task);
    const InputTensor* prompts = nullptr;
    for (const InputTensor& tensor : tensors) {
      if (!IsPrompts(tensor.name())) continue;
      if (prompts != nullptr) {
        return FieldError(kInputIds, absl::StrCat("must be absent where there is ", kTextInput));
      }
      prompts = &tensor;
    }
    if (prompts == nullptr) {
      return FieldError(wanted, plan_.task == InferTask::kPaintByTokens
                                    ? "is required where there is no image"
                                    : "is required");
    }
    if (prompts->name() == kImage) return ReadPictures(*prompts);
    return prompts->name() == wanted ? ReadTextPrompts(*prompts) : ReadIdPrompts(*prompts);
  }

  absl::Status CheckPromptShape(const InputTensor& tensor) {
    const auto shape = tensor.shape();
    if (shape.size() == 1 || (shape.size() == 2 && shape[1] == 1)) return absl::OkStatus();
    return FieldError(tensor.name(), absl::StrCat("shape must be [prompts] or [prompts,1], got [",
                                                  absl::StrJoin(shape, ","), "]"));
  }

  absl::Status ReadPictures(const InputTensor& tensor) {
    if (auto status = CheckPromptShape(tensor); !status.ok()) return status;
    auto files = tensor.Bytes();
    if (!files.ok()) return files.status();
    if (auto status = SetPromptCount(tensor, files->size()); !status.ok()) return status;
    for (size_t i = 0; i < files->size(); ++i) {
      auto* part = plan_.requests[i].mutable_parts()->add_parts();
      part->mutable_picture()->set_data(std::move((*files)[i]));
    }
    return absl::OkStatus();
  }

  // The words that texts about pictures begin with; empty ones are none.
  absl::Status ReadBeginnings(const InputTensor& tensor) {
    auto texts = tensor.Texts();
    if (!texts.ok()) return texts.status();
    if (auto status = CheckCount(kTextInput, texts->size()); !status.ok()) return status;
    if (auto status = CheckSize(kTextInput, *texts); !status.ok()) return status;
    for (size_t i = 0; i < plan_.requests.size(); ++i) {
      const std::string& text = (*texts)[texts->size() == 1 ? 0 : i];
      if (!text.empty()) plan_.requests[i].mutable_parts()->add_parts()->set_text(text);
    }
    return absl::OkStatus();
  }

  absl::Status ReadTextPrompts(const InputTensor& tensor) {
    if (auto status = CheckPromptShape(tensor); !status.ok()) return status;
    auto texts = tensor.Texts();
    if (!texts.ok()) return texts.status();
    if (auto status = SetPromptCount(tensor, texts->size()); !status.ok()) return status;
    for (size_t i = 0; i < texts->size(); ++i) {
      plan_.requests[i].set_prompt(std::move((*texts)[i]));
    }
    return absl::OkStatus();
  }

  // Shorter prompts of a batch end with negative ids.
  absl::Status ReadIdPrompts(const InputTensor& tensor) {
    const auto shape = tensor.shape();
    if (shape.size() != 1 && shape.size() != 2) {
      return FieldError(tensor.name(), absl::StrCat("shape must be [tokens] or [prompts,tokens], "
                                                    "got [",
                                                    absl::StrJoin(shape, ","), "]"));
    }
    auto ids = tensor.Integers();
    if (!ids.ok()) return ids.status();
    const size_t count = shape.size() == 2 ? static_cast<size_t>(shape[0]) : 1;
    if (auto status = SetPromptCount(tensor, count); !status.ok()) return status;
    const size_t length = ids->size() / count;
    for (size_t i = 0; i < count; ++i) {
      auto* prompt = plan_.requests[i].mutable_token_ids()->mutable_ids();
      bool ended = false;
      for (size_t k = i * length; k < (i + 1) * length; ++k) {
        ended = ended || (*ids)[k] < 0;
        if (ended && (*ids)[k] < 0) continue;
        auto id = ToUint32(tensor.name(), (*ids)[k]);
        if (!id.ok()) return id.status();
        if (ended) {
          return FieldError(tensor.name(), "negative ids may only stand behind a prompt");
        }
        prompt->Add(*id);
      }
    }
    return absl::OkStatus();
  }

  absl::Status ReadInput(const InputTensor& tensor) {
    const absl::string_view name = tensor.name();
    if (IsPrompts(name)) return absl::OkStatus();
    if (plan_.task == InferTask::kCaption && name == kTextInput) return ReadBeginnings(tensor);
    if (name == kStream) {
      auto values = tensor.Booleans();
      if (!values.ok()) return values.status();
      if (values->size() != 1) {
        return FieldError(name, absl::StrCat("must have 1 element, got ", values->size()));
      }
      plan_.stream = values->front();
      return absl::OkStatus();
    }
    const FieldDescriptor* field = ParameterField(plan_.task, name);
    if (field == nullptr) return Unknown("inputs", name);
    auto values = ValuesOf(tensor, *field);
    if (!values.ok()) return values.status();
    if (field->is_repeated() && tensor.shape().size() > 1 && tensor.shape()[0] != 1) {
      return FieldError(name, "shape must be [strings] or [1,strings]: all prompts share them");
    }
    return Apply(name, *field, *values);
  }

  absl::Status Apply(absl::string_view tensor, const FieldDescriptor& field,
                     const ParameterValues& values) {
    const std::string name(tensor);
    if (IsOfGuide(field)) {
      if (!guide_.empty() && guide_ != name) {
        return FieldError(name, absl::StrCat("can't go with ", guide_));
      }
      guide_ = name;
    }
    if (!set_.insert(name).second) return FieldError(name, "is both an input and a parameter");
    if (auto status = CheckSize(name, values); !status.ok()) return status;
    const size_t count = CountOf(values);
    if (!field.is_repeated()) {
      if (auto status = CheckCount(name, count); !status.ok()) return status;
    }
    if (count > 1 && (name == "width" || name == "height")) sizes_differ_ = true;
    for (size_t i = 0; i < plan_.requests.size(); ++i) {
      const absl::Status status =
          SetField(field, values, count == 1 ? 0 : i, OwnerOf(field, &plan_.requests[i]));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // Of the values of one tensor.
  absl::Status CheckCount(absl::string_view name, size_t count) {
    // A tensor has no place for prompts with different numbers of results.
    const bool one = name == "n" || name == "count" || name == "best_of";
    if (count == 1 || (!one && count == plan_.requests.size())) return absl::OkStatus();
    return FieldError(name, absl::StrCat("must have 1 element",
                                         one ? ""
                                             : absl::StrCat(" or one for each of the ",
                                                            plan_.requests.size(), " prompts"),
                                         ", got ", count));
  }

  absl::Status ReadParameter(const std::string& name, const InferParameter& parameter) {
    if (const FieldDescriptor* field = ParameterField(plan_.task, name)) {
      auto values = ValuesOf(name, parameter, *field);
      return values.ok() ? Apply(name, *field, *values) : values.status();
    }
    if (name == "priority") return ReadPriority(parameter);
    if (name == "timeout") return ReadTimeout(parameter);
    if (name == "tenant") {
      auto tenant = TextOf(name, parameter);
      if (!tenant.ok()) return tenant.status();
      if (auto status = CheckId(name, *tenant); !status.ok()) return status;
      for (GenerateRequest& request : plan_.requests) request.set_tenant(*tenant);
      return absl::OkStatus();
    }
    if (name == kStream || name == "triton_enable_empty_final_response") {
      auto value = BooleanOf(name, parameter);
      if (!value.ok()) return value.status();
      (name == kStream ? plan_.stream : plan_.empty_final_response) = *value;
      return absl::OkStatus();
    }
    return Unknown("parameters", name);
  }

  absl::Status ReadPriority(const InferParameter& parameter) {
    auto level = IntegerOf("priority", parameter);
    if (!level.ok()) return level.status();
    if (*level < 0 || *level > kLowestPriority) {
      return FieldError("priority",
                        absl::StrCat("must be 0 (the default) or 1 (first) to ", kLowestPriority,
                                     " (last), got ", static_cast<double>(*level)));
    }
    const int64_t priority = *level == 0 ? 0 : 101 - static_cast<int64_t>(*level);
    for (GenerateRequest& request : plan_.requests) {
      request.set_priority(static_cast<int32_t>(priority));
    }
    return absl::OkStatus();
  }

  absl::Status ReadTimeout(const InferParameter& parameter) {
    auto timeout = IntegerOf("timeout", parameter);
    if (!timeout.ok()) return timeout.status();
    if (*timeout < 0 || *timeout > std::numeric_limits<int64_t>::max()) {
      return FieldError("timeout", absl::StrCat("must be 0 (none) or microseconds, got ",
                                                static_cast<double>(*timeout)));
    }
    if (*timeout > 0) plan_.timeout = absl::Microseconds(static_cast<int64_t>(*timeout));
    return absl::OkStatus();
  }

  absl::Status ReadOutputs() {
    const std::vector<TensorSpec> known = OutputsOf(plan_.task);
    for (const auto& output : proto_.outputs()) {
      const bool exists = std::any_of(known.begin(), known.end(), [&](const TensorSpec& tensor) {
        return tensor.name == output.name();
      });
      if (!exists) return Unknown("outputs", output.name());
      if (plan_.Wants(output.name())) return FieldError(output.name(), "must be asked for once");
      for (const auto& [name, parameter] : output.parameters()) {
        // What Triton's clients say of outputs that come in the response, as all of ours do.
        if (name == "binary_data") continue;
        return FieldError(output.name(),
                          "must be asked for without parameters: there is neither shared memory "
                          "nor classification");
      }
      plan_.outputs.push_back(output.name());
    }
    if (plan_.outputs.empty()) plan_.outputs = DefaultOutputsOf(plan_.task);
    if (plan_.Wants(kPixels) && sizes_differ_) {
      return FieldError(kPixels, "pictures of different sizes fit no tensor");
    }
    return absl::OkStatus();
  }

  absl::Status Unknown(absl::string_view field, absl::string_view name) const {
    std::vector<std::string> names;
    for (TensorSpec& tensor : field == "outputs" ? OutputsOf(plan_.task) : InputsOf(plan_.task)) {
      names.push_back(std::move(tensor.name));
    }
    // Only a plausible name is worth repeating.
    const std::string got = IsModelName(name) ? absl::StrCat(", got ", name) : "";
    return FieldError(
        field, absl::StrCat("must be of ", absl::StrJoin(names, ", "),
                            field == "parameters" ? ", priority, timeout, tenant" : "", got));
  }

  const ModelInferRequest& proto_;
  InferPlan plan_;
  std::set<std::string> set_;  // tensors and parameters that have a value
  std::string guide_;          // the one that says what texts must match
  bool sizes_differ_ = false;
};

// The name that the protocol's users know for a field of ours.
std::string TensorName(absl::string_view field, InferTask task) {
  if (absl::ConsumePrefix(&field, "text.guide.")) return std::string(field);
  if (absl::StartsWith(field, "text.")) return std::string(field.substr(5));
  if (absl::StartsWith(field, "picture.")) return std::string(field.substr(8));
  if (field == "prompt") return std::string(PromptTensor(task));
  if (absl::StartsWith(field, "parts.parts[0]")) return std::string(kImage);
  if (absl::StartsWith(field, "parts")) return std::string(kTextInput);
  if (absl::StartsWith(field, "token_ids")) return std::string(kInputIds);
  if (field == "request_id") return "id";
  if (field == "model") return "model_name";
  return std::string(field);
}

}  // namespace

bool InferPlan::Wants(absl::string_view output) const {
  return std::find(outputs.begin(), outputs.end(), output) != outputs.end();
}

InferTask TaskOf(const ModelInferRequest& proto, ModelKind kind) {
  const std::vector<InferTask> tasks = TasksOf(kind);
  const auto& inputs = proto.inputs();
  const bool reads = std::any_of(inputs.begin(), inputs.end(),
                                 [](const auto& tensor) { return tensor.name() == kImage; });
  return reads ? tasks.back() : tasks.front();
}

absl::StatusOr<InferPlan> PlanInfer(const ModelInferRequest& proto, InferTask task) {
  return Planner(proto, task).Plan();
}

absl::Status WithTensorNames(const absl::Status& status, InferTask task,
                             std::optional<size_t> prompt) {
  const auto payload = status.GetPayload(kBadRequestUrl);
  google::rpc::BadRequest details;
  if (!payload || !details.ParseFromString(std::string(*payload))) return status;
  Violations violations;
  for (const auto& violation : details.field_violations()) {
    std::string name = TensorName(violation.field(), task);
    if (prompt) absl::StrAppend(&name, "[", *prompt, "]");
    violations.Add(name, violation.description());
  }
  return violations.ToStatus();
}

}  // namespace hanmo
