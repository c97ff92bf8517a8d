#include "server/open_inference/infer_response.h"

#include <algorithm>
#include <bit>
#include <initializer_list>
#include <utility>

#include "server/open_inference/model_tensors.h"

namespace hanmo {
namespace {

using hanmo::v1::Output;
using inference::ModelInferResponse;
using Shape = std::vector<int64_t>;

static_assert(std::endian::native == std::endian::little, "raw tensors are little-endian");

// Behind the ids of a text that is shorter than the longest.
constexpr int32_t kNoToken = -1;

std::string* AddTensor(absl::string_view name, absl::string_view datatype, const Shape& shape,
                       ModelInferResponse* response) {
  auto* tensor = response->add_outputs();
  tensor->set_name(std::string(name));
  tensor->set_datatype(std::string(datatype));
  tensor->mutable_shape()->Add(shape.begin(), shape.end());
  return response->add_raw_output_contents();
}

template <typename Value>
void Append(Value value, std::string* raw) {
  raw->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendText(absl::string_view text, std::string* raw) {
  Append(static_cast<uint32_t>(text.size()), raw);
  raw->append(text.data(), text.size());
}

absl::string_view ReasonName(hanmo::v1::FinishReason reason) {
  switch (reason) {
    case hanmo::v1::FINISH_REASON_EOS:
      return "eos";
    case hanmo::v1::FINISH_REASON_STOP:
      return "stop";
    case hanmo::v1::FINISH_REASON_LENGTH:
      return "length";
    default:
      return "";
  }
}

// One output with what its message does not hold.
struct OutputRow {
  const Output* output;
  const std::string* pixels;
};

Shape With(Shape shape, std::initializer_list<int64_t> more) {
  shape.insert(shape.end(), more);
  return shape;
}

void AddTokenIds(const std::vector<OutputRow>& rows, const Shape& shape,
                 ModelInferResponse* response) {
  int longest = 0;
  for (const OutputRow& row : rows) {
    longest = std::max(longest, row.output->text().token_ids_size());
  }
  std::string* raw = AddTensor("token_ids", "INT32", With(shape, {longest}), response);
  for (const OutputRow& row : rows) {
    const auto& ids = row.output->text().token_ids();
    for (const uint32_t id : ids) Append(static_cast<int32_t>(id), raw);
    for (int i = ids.size(); i < longest; ++i) Append(kNoToken, raw);
  }
}

void AddTextTensor(const std::string& name, const std::vector<OutputRow>& rows, const Shape& shape,
                   ModelInferResponse* response) {
  if (name == "token_ids") return AddTokenIds(rows, shape, response);
  std::string* raw = AddTensor(name, name == "seed" ? "UINT64" : "BYTES", shape, response);
  for (const OutputRow& row : rows) {
    const hanmo::v1::Text& text = row.output->text();
    if (name == "seed") {
      Append(text.seed(), raw);
    } else {
      AppendText(name == "text_output" ? text.text() : ReasonName(text.finish_reason()), raw);
    }
  }
}

void AddPictureTensor(const std::string& name, const std::vector<OutputRow>& rows,
                      const Shape& shape, ModelInferResponse* response) {
  if (name == kPixels) {
    const hanmo::v1::Picture& first = rows.front().output->picture();
    std::string* raw =
        AddTensor(name, "UINT8", With(shape, {first.height(), first.width(), 3}), response);
    for (const OutputRow& row : rows) raw->append(*row.pixels);
    return;
  }
  const absl::string_view datatype = name == kImage   ? "BYTES"
                                     : name == "seed" ? "UINT64"
                                     : name == kScore ? "FP32"
                                                      : "UINT32";
  std::string* raw = AddTensor(name, datatype, shape, response);
  for (const OutputRow& row : rows) {
    const hanmo::v1::Picture& picture = row.output->picture();
    if (name == kImage) {
      AppendText(picture.data(), raw);
    } else if (name == "seed") {
      Append(picture.seed(), raw);
    } else if (name == kScore) {
      Append(picture.score(), raw);  // 0 where nothing was scored
    } else {
      Append(picture.steps(), raw);  // step and steps: all are done
    }
  }
}

// Of a response to one output.
Shape OneRow(const InferPlan& plan) { return plan.batched ? Shape{1, 1} : Shape{1}; }

void SetIndex(uint32_t index, ModelInferResponse* response) {
  (*response->mutable_parameters())["index"].set_int64_param(index);
}

}  // namespace

void AddOutputs(const InferPlan& plan, absl::Span<const PromptResult> prompts,
                ModelInferResponse* response) {
  std::vector<OutputRow> rows;
  for (const PromptResult& prompt : prompts) {
    for (int i = 0; i < prompt.response.outputs_size(); ++i) {
      rows.push_back({&prompt.response.outputs(i), &prompt.pixels[i]});
    }
  }
  const auto count = static_cast<int64_t>(rows.size());
  const auto batch = static_cast<int64_t>(prompts.size());
  const Shape shape = plan.batched ? Shape{batch, count / batch} : Shape{count};
  for (const std::string& name : plan.outputs) {
    if (Writes(plan.task)) {
      AddTextTensor(name, rows, shape, response);
    } else {
      AddPictureTensor(name, rows, shape, response);
    }
  }
}

void AddTextDelta(const InferPlan& plan, uint32_t index, const std::string& text,
                  absl::Span<const uint32_t> token_ids, ModelInferResponse* response) {
  SetIndex(index, response);
  if (plan.Wants("text_output")) {
    AppendText(text, AddTensor("text_output", "BYTES", OneRow(plan), response));
  }
  if (plan.Wants("token_ids") && !token_ids.empty()) {
    const auto count = static_cast<int64_t>(token_ids.size());
    std::string* raw = AddTensor("token_ids", "INT32", With(OneRow(plan), {count}), response);
    for (const uint32_t id : token_ids) Append(static_cast<int32_t>(id), raw);
  }
}

void AddStep(const InferPlan& plan, uint32_t index, uint32_t step, uint32_t steps,
             ModelInferResponse* response) {
  SetIndex(index, response);
  if (plan.Wants("step")) Append(step, AddTensor("step", "UINT32", OneRow(plan), response));
  if (plan.Wants("steps")) Append(steps, AddTensor("steps", "UINT32", OneRow(plan), response));
}

void AddTextEnd(const InferPlan& plan, uint32_t index, const hanmo::v1::Text& text,
                ModelInferResponse* response) {
  AddTextDelta(plan, index, "", {}, response);
  Output output;
  *output.mutable_text() = text;
  for (const std::string& name : plan.outputs) {
    if (name == "text_output" || name == "token_ids") continue;
    AddTextTensor(name, {{&output, nullptr}}, OneRow(plan), response);
  }
}

void AddPicture(const InferPlan& plan, uint32_t index, const hanmo::v1::Picture& picture,
                const std::string& pixels, ModelInferResponse* response) {
  SetIndex(index, response);
  Output output;
  *output.mutable_picture() = picture;
  for (const std::string& name : plan.outputs) {
    if (name == "step" || name == "steps") continue;
    AddPictureTensor(name, {{&output, &pixels}}, OneRow(plan), response);
  }
}

}  // namespace hanmo
