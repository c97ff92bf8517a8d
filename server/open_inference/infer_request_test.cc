#include "server/open_inference/infer_request.h"

#include <limits>
#include <random>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "server/open_inference/model_tensors.h"
#include "server/open_inference/testing/infer_protos.h"
#include "server/rpc/violations.h"
#if GOOGLE_PROTOBUF_VERSION < 3022000
#include "google/protobuf/stubs/logging.h"
#endif

namespace hanmo {
namespace {

using inference::ModelInferRequest;
using ::testing::ElementsAre;
using testing::ErrorOf;
using ::testing::HasSubstr;
using testing::Input;
using testing::Parameter;
using testing::Proto;
using ::testing::SizeIs;
using testing::Words;

const std::string kOnePrompt = Words("text_input", "1", "'山'");
const std::string kTwoPrompts = Words("text_input", "2, 1", "'a', 'b'");
const std::string kOnePicture = Words("prompt", "1", "'山'");

absl::StatusOr<InferPlan> Text(const std::string& proto) {
  return PlanInfer(Proto(proto), InferTask::kWrite);
}
absl::StatusOr<InferPlan> Picture(const std::string& proto) {
  return PlanInfer(Proto(proto), InferTask::kPaint);
}

TEST(InferRequestTest, TextsHaveOneFormAtMost) {
  const auto guide = [](const std::string& tensors) {
    const auto plan = Text(tensors);
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan->requests.back().text().guide();
  };
  EXPECT_EQ(guide(kOnePrompt + Words("regex", "1", "'[0-9]+'")).regex(), "[0-9]+");
  EXPECT_EQ(guide(kTwoPrompts + Words("grammar", "2,1", "'a', 'b'")).grammar(), "b");
  EXPECT_EQ(guide(kTwoPrompts + Parameter("json_schema", "string_param: '{}'")).json_schema(),
            "{}");
  EXPECT_THAT(guide(kTwoPrompts + Words("choice", "2", "'是', '否'")).choice().texts(),
              ElementsAre("是", "否"));
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + Words("regex", "1", "'a'") +
                         Parameter("grammar", "string_param: 'a'"))),
            "grammar: can't go with regex");
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + Words("regex", "1", "'a'") +
                         Parameter("regex", "string_param: 'a'"))),
            "regex: is both an input and a parameter");
  EXPECT_THAT(ErrorOf(Picture(kOnePicture + Words("regex", "1", "'a'"))), HasSubstr("inputs: "));
}

TEST(InferRequestTest, ATextRequestWithEveryTensor) {
  const auto plan = Text(absl::StrCat(
      "model_name: 'poet' id: 'r-1' ", kOnePrompt,
      Input("max_tokens", "INT32", "1", "int_contents: 7"),
      Input("temperature", "FP32", "1,1", "fp32_contents: 0.5"),
      Input("top_k", "INT64", "1", "int64_contents: 3"),
      Input("top_p", "FP64", "1", "fp64_contents: 0.25"),
      Input("min_p", "FP32", "1", "fp32_contents: 0.125"),
      Input("repetition_penalty", "FP32", "1", "fp32_contents: 1.5"),
      Input("presence_penalty", "FP32", "1", "fp32_contents: -1"),
      Input("frequency_penalty", "FP32", "1", "fp32_contents: 1"), Words("stop", "2", "'。', 'x'"),
      Input("include_stop", "BOOL", "1", "bool_contents: true"),
      Input("seed", "UINT64", "1", "uint64_contents: 18446744073709551615"),
      Input("n", "UINT8", "1", "uint_contents: 2"),
      Input("min_tokens", "UINT32", "1", "uint_contents: 1"),
      Input("ignore_eos", "BOOL", "1", "bool_contents: true")));
  ASSERT_TRUE(plan.ok()) << plan.status();
  ASSERT_THAT(plan->requests, SizeIs(1));
  hanmo::v1::GenerateRequest expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"(model: "poet" request_id: "r-1" prompt: "山" text {
           max_tokens: 7 temperature: 0.5 top_k: 3 top_p: 0.25 min_p: 0.125 repetition_penalty: 1.5
           presence_penalty: -1 frequency_penalty: 1 stop: "。" stop: "x" include_stop: true
           seed: 18446744073709551615 n: 2 min_tokens: 1 ignore_eos: true })",
      &expected));
  EXPECT_EQ(plan->requests[0].ShortDebugString(), expected.ShortDebugString());
  EXPECT_FALSE(plan->batched);
  EXPECT_THAT(plan->outputs, ElementsAre("text_output", "token_ids", "finish_reason", "seed"));
}

TEST(InferRequestTest, APictureRequestByParameters) {
  const auto plan = Picture(absl::StrCat(
      kOnePicture, Parameter("negative_prompt", "string_param: '水'"),
      Parameter("width", "int64_param: 64"), Parameter("height", "uint64_param: 72"),
      Parameter("steps", "int64_param: 4"), Parameter("min_steps", "int64_param: 2"),
      Parameter("guidance", "int64_param: 4"), Parameter("seed", "int64_param: 9"),
      Parameter("count", "int64_param: 2"), Parameter("best_of", "int64_param: 8"),
      Parameter("sampler", "string_param: 'ddim'"), Parameter("format", "string_param: 'webp'"),
      Parameter("quality", "int64_param: 80"), Parameter("tenant", "string_param: 'blue'"),
      "outputs { name: 'pixels' }"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  hanmo::v1::GenerateRequest expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"(prompt: "山" tenant: "blue" picture {
           negative_prompt: "水" width: 64 height: 72 steps: 4 min_steps: 2 guidance: 4 seed: 9
           count: 2 best_of: 8 sampler: "ddim" format: PICTURE_FORMAT_WEBP quality: 80 })",
      &expected));
  EXPECT_EQ(plan->requests[0].ShortDebugString(), expected.ShortDebugString());
  EXPECT_THAT(plan->outputs, ElementsAre("pixels"));
}

TEST(InferRequestTest, PromptsOfABatchHaveTheirOwnValuesOrShareOne) {
  const auto plan = Text(absl::StrCat(
      kTwoPrompts, Input("seed", "INT64", "2,1", "int64_contents: [5, 6]"),
      Input("max_tokens", "INT32", "1", "int_contents: 3"), Words("stop", "1,1", "'x'")));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->batched);
  ASSERT_THAT(plan->requests, SizeIs(2));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(plan->requests[i].prompt(), i == 0 ? "a" : "b");
    EXPECT_EQ(plan->requests[i].text().seed(), 5u + i);
    EXPECT_EQ(plan->requests[i].text().max_tokens(), 3u);
    EXPECT_THAT(plan->requests[i].text().stop(), ElementsAre("x"));
  }
  EXPECT_EQ(ErrorOf(Text(absl::StrCat(kTwoPrompts,
                                      Input("seed", "INT64", "3", "int64_contents: [5, 6, 7]")))),
            "seed: must have 1 element or one for each of the 2 prompts, got 3");
  EXPECT_EQ(
      ErrorOf(Text(absl::StrCat(kTwoPrompts, Input("n", "INT64", "2", "int64_contents: [1, 2]")))),
      "n: must have 1 element, got 2");
  EXPECT_EQ(ErrorOf(Text(absl::StrCat(kTwoPrompts, Words("stop", "2,1", "'x', 'y'")))),
            "stop: shape must be [strings] or [1,strings]: all prompts share them");
}

TEST(InferRequestTest, TokenIdsMayTakeThePlaceOfWords) {
  const auto plan = Text(Input("input_ids", "INT32", "2,3", "int_contents: [7, 8, 9, 4, -1, -1]"));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(plan->requests[0].token_ids().ids(), ElementsAre(7, 8, 9));
  EXPECT_THAT(plan->requests[1].token_ids().ids(), ElementsAre(4));
  EXPECT_EQ(ErrorOf(Text(Input("input_ids", "INT32", "3", "int_contents: [7, -1, 9]"))),
            "input_ids: negative ids may only stand behind a prompt");
  EXPECT_THAT(ErrorOf(Text(Input("input_ids", "INT64", "1", "int64_contents: 4294967296"))),
              HasSubstr("input_ids: must be in [0, 4294967295]"));
  EXPECT_THAT(ErrorOf(Text(Input("input_ids", "INT32", "0,3", ""))),
              HasSubstr("input_ids: must be 1 to 64 prompts, got 0"));
  EXPECT_EQ(
      ErrorOf(Text(absl::StrCat(kOnePrompt, Input("input_ids", "INT8", "1", "int_contents: 1")))),
      "input_ids: must be absent where there is text_input");
}

TEST(InferRequestTest, PromptsAreRequiredAndOfOneShape) {
  EXPECT_EQ(ErrorOf(Text("")), "text_input: is required");
  EXPECT_EQ(ErrorOf(Picture("")), "prompt: is required");
  EXPECT_EQ(ErrorOf(Text(Words("text_input", "1,2", "'a', 'b'"))),
            "text_input: shape must be [prompts] or [prompts,1], got [1,2]");
  EXPECT_EQ(ErrorOf(Text(Words("text_input", "", "'a'"))),
            "text_input: shape must be [prompts] or [prompts,1], got []");
  EXPECT_EQ(ErrorOf(Text(Words("text_input", "0", ""))),
            "text_input: must be 1 to 64 prompts, got 0");
  std::string many = "'a'";
  for (int i = 1; i < 65; ++i) many += ", 'a'";
  EXPECT_EQ(ErrorOf(Text(Words("text_input", "65", many))),
            "text_input: must be 1 to 64 prompts, got 65");
  EXPECT_EQ(ErrorOf(Text(Input("text_input", "INT8", "1", "int_contents: 1"))),
            "text_input: datatype must be BYTES");
}

TEST(InferRequestTest, UnknownNamesAreRefusedWithTheKnownOnes) {
  EXPECT_THAT(ErrorOf(Text(kOnePrompt + Words("sampler", "1", "'ddim'"))),
              ::testing::AllOf(HasSubstr("inputs: must be of text_input, input_ids, max_tokens"),
                               HasSubstr(", got sampler")));
  EXPECT_THAT(ErrorOf(Picture(kOnePicture + Parameter("top_k", "int64_param: 1"))),
              ::testing::AllOf(HasSubstr("parameters: must be of prompt, negative_prompt"),
                               HasSubstr("priority, timeout, tenant, got top_k")));
  EXPECT_THAT(
      ErrorOf(Text(kOnePrompt + "outputs { name: 'image' }")),
      HasSubstr("outputs: must be of text_output, token_ids, finish_reason, seed, got image"));
  // What no model could be called is not repeated.
  EXPECT_THAT(ErrorOf(Text(kOnePrompt + Words("a b", "1", "'x'"))),
              ::testing::Not(HasSubstr("got")));
}

TEST(InferRequestTest, ValuesMustBeOfTheirKind) {
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + Input("max_tokens", "INT32", "1", "int_contents: -1"))),
            "max_tokens: must be in [0, 4294967295], got -1");
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + Parameter("seed", "int64_param: -1"))),
            "seed: must be in [0, 18446744073709551615], got -1");
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + Parameter("max_tokens", "double_param: 1"))),
            "max_tokens: must be an int64_param or a uint64_param");
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + Parameter("temperature", "string_param: '1'"))),
            "temperature: must be a double_param or an int64_param");
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + Parameter("ignore_eos", "int64_param: 1"))),
            "ignore_eos: must be a bool_param");
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + Parameter("stop", ""))), "stop: must be a string_param");
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + Input("temperature", "INT8", "1", "int_contents: 1"))),
            "temperature: datatype must be FP32 or FP64");
  EXPECT_EQ(ErrorOf(Picture(kOnePicture + Parameter("format", "string_param: 'PNG'"))),
            "format: must be \"png\", \"jpeg\" or \"webp\"");
  EXPECT_EQ(ErrorOf(Text(absl::StrCat(kOnePrompt, Input("seed", "INT8", "1", "int_contents: 1"),
                                      Parameter("seed", "int64_param: 1")))),
            "seed: is both an input and a parameter");
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + "id: 'a b'")),
            "id: must be at most 128 characters of [A-Za-z0-9._-]");
}

TEST(InferRequestTest, FloatsBeyondTheirRangeStayOutOfIt) {
  auto proto = Proto(kOnePrompt + Input("top_p", "FP64", "1", "fp64_contents: 1e300"));
  auto plan = PlanInfer(proto, InferTask::kWrite);
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->requests[0].text().top_p(), std::numeric_limits<float>::infinity());
  proto.mutable_inputs(1)->mutable_contents()->set_fp64_contents(0, -1e300);
  plan = PlanInfer(proto, InferTask::kWrite);
  EXPECT_EQ(plan->requests[0].text().top_p(), -std::numeric_limits<float>::infinity());
  proto.mutable_inputs(1)->mutable_contents()->set_fp64_contents(
      0, std::numeric_limits<double>::quiet_NaN());
  plan = PlanInfer(proto, InferTask::kWrite);
  EXPECT_NE(plan->requests[0].text().top_p(), plan->requests[0].text().top_p());
}

TEST(InferRequestTest, PriorityAndTimeoutAreTritons) {
  const auto plan =
      Text(absl::StrCat(kOnePrompt, Parameter("priority", "uint64_param: 1"),
                        Parameter("timeout", "int64_param: 1500"),
                        Parameter("triton_enable_empty_final_response", "bool_param: true"),
                        Parameter("stream", "bool_param: false")));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->requests[0].priority(), 100);
  EXPECT_EQ(plan->timeout, absl::Microseconds(1500));
  EXPECT_TRUE(plan->empty_final_response);
  EXPECT_FALSE(plan->stream);
  const auto none = Text(absl::StrCat(kOnePrompt, Parameter("priority", "int64_param: 0"),
                                      Parameter("timeout", "int64_param: 0")));
  EXPECT_EQ(none->requests[0].priority(), 0);
  EXPECT_EQ(none->timeout, absl::InfiniteDuration());
  EXPECT_EQ(Text(kOnePrompt + Parameter("priority", "int64_param: 201"))->requests[0].priority(),
            -100);
  EXPECT_THAT(ErrorOf(Text(kOnePrompt + Parameter("priority", "int64_param: 202"))),
              HasSubstr("priority: must be 0 (the default) or 1 (first) to 201 (last), got 202"));
  EXPECT_THAT(ErrorOf(Text(kOnePrompt + Parameter("timeout", "int64_param: -5"))),
              HasSubstr("timeout: must be 0 (none) or microseconds, got -5"));
}

TEST(InferRequestTest, OutputsAreAskedForOnceAndPlain) {
  EXPECT_EQ(ErrorOf(Text(kOnePrompt + "outputs { name: 'seed' } outputs { name: 'seed' }")),
            "seed: must be asked for once");
  EXPECT_THAT(ErrorOf(Text(kOnePrompt + "outputs { name: 'seed' parameters { key: 'classification' "
                                        "value { int64_param: 3 } } }")),
              HasSubstr("seed: must be asked for without parameters"));
  EXPECT_EQ(ErrorOf(Picture(absl::StrCat(Words("prompt", "2", "'a', 'b'"),
                                         Input("width", "INT32", "2", "int_contents: [64, 72]"),
                                         "outputs { name: 'pixels' }"))),
            "pixels: pictures of different sizes fit no tensor");
}

TEST(InferRequestTest, WhatAllPromptsShareIsBounded) {
  ModelInferRequest proto = Proto(kOnePicture);
  (*proto.mutable_parameters())["negative_prompt"].set_string_param(std::string(2 << 20, 'a'));
  EXPECT_EQ(ErrorOf(PlanInfer(proto, InferTask::kPaint)),
            "negative_prompt: must be at most 1048576 bytes together, got 2097152");
  proto = Proto(kOnePrompt + Words("stop", "2000", ""));
  for (int i = 0; i < 2000; ++i)
    proto.mutable_inputs(1)->mutable_contents()->add_bytes_contents("");
  EXPECT_EQ(ErrorOf(PlanInfer(proto, InferTask::kWrite)),
            "stop: must be at most 1024 elements, got 2000");
}

TEST(InferRequestTest, ErrorsOfOurFieldsGetTheNamesOfTheTensors) {
  Violations violations;
  violations.Add("text.max_tokens", "must be in [1, 64], got 99");
  violations.Add("prompt", "must not be empty");
  violations.Add("token_ids.ids[3]", "must be below 257");
  const absl::Status status = violations.ToStatus();
  EXPECT_EQ(WithTensorNames(status, InferTask::kWrite, std::nullopt).message(),
            "max_tokens: must be in [1, 64], got 99; text_input: must not be empty; "
            "input_ids: must be below 257");
  EXPECT_EQ(
      WithTensorNames(FieldError("picture.steps", "must be less"), InferTask::kPaint, 2).message(),
      "steps[2]: must be less");
  EXPECT_EQ(WithTensorNames(absl::UnavailableError("draining"), InferTask::kWrite, 1),
            absl::UnavailableError("draining"));
}

TEST(InferRequestTest, EveryTensorThatIsDescribedIsUnderstood) {
  for (const InferTask task :
       {InferTask::kWrite, InferTask::kPaint, InferTask::kPaintByTokens, InferTask::kCaption}) {
    for (const TensorSpec& tensor : InputsOf(task)) {
      if (tensor.name == PromptTensor(task) || tensor.name == kInputIds) continue;
      ModelInferRequest proto = Proto(task == InferTask::kWrite     ? kOnePrompt
                                      : task == InferTask::kCaption ? Words("image", "1", "'a'")
                                                                    : kOnePicture);
      auto* input = proto.add_inputs();
      input->set_name(tensor.name);
      input->set_datatype(std::string(tensor.datatype));
      input->add_shape(1);
      auto* contents = input->mutable_contents();
      if (tensor.datatype == "UINT32") contents->add_uint_contents(1);
      if (tensor.datatype == "UINT64") contents->add_uint64_contents(1);
      if (tensor.datatype == "FP32") contents->add_fp32_contents(1);
      if (tensor.datatype == "BOOL") contents->add_bool_contents(true);
      if (tensor.datatype == "BYTES") contents->add_bytes_contents("png");
      EXPECT_TRUE(PlanInfer(proto, task).ok()) << tensor.name;
    }
  }
}

// Whatever the bytes say: an answer, and no read beyond them (the sanitizers look on).
TEST(InferRequestTest, BytesThatAreNearlyRightDoNoHarm) {
#if GOOGLE_PROTOBUF_VERSION < 3022000
  const google::protobuf::LogSilencer silence;  // of strings that are not UTF-8
#endif
  ModelInferRequest raw = Proto(
      "model_name: 'm' id: 'i' inputs { name: 'text_input' datatype: 'BYTES' shape: [2, 1] } "
      "inputs { name: 'seed' datatype: 'INT64' shape: 2 } inputs { name: 'top_p' datatype: 'FP32' "
      "shape: 1 } inputs { name: 'ignore_eos' datatype: 'BOOL' shape: [1, 1] } "
      "inputs { name: 'stop' datatype: 'BYTES' shape: 1 }" +
      Parameter("timeout", "int64_param: 9") + "outputs { name: 'seed' }");
  raw.add_raw_input_contents(std::string("\1\0\0\0a\2\0\0\0bc", 11));
  raw.add_raw_input_contents(std::string(16, '\1'));
  raw.add_raw_input_contents(std::string("\0\0\0\x3f", 4));
  raw.add_raw_input_contents(std::string(1, '\1'));
  raw.add_raw_input_contents(std::string("\1\0\0\0x", 5));
  ASSERT_TRUE(PlanInfer(raw, InferTask::kWrite).ok());
  const ModelInferRequest typed =
      Proto(absl::StrCat(kTwoPrompts, Input("seed", "UINT8", "2", "uint_contents: [5, 6]"),
                         Input("input_ids", "INT32", "2,2", "int_contents: [1, 2, 3, -1]"),
                         Words("stop", "1", "'x'")));
  std::mt19937 random(1);  // NOLINT: the same inputs each time
  int planned = 0;
  for (const ModelInferRequest& seed : {raw, typed}) {
    const std::string valid = seed.SerializeAsString();
    for (int round = 0; round < 20000; ++round) {
      std::string bytes = valid;
      for (uint32_t edits = random() % 3 + 1; edits > 0; --edits) {
        const size_t place = random() % bytes.size();
        switch (random() % 4) {
          case 0:
            bytes[place] = static_cast<char>(random());
            break;
          case 1:
            bytes[place] ^= static_cast<char>(1 << random() % 8);
            break;
          case 2:
            bytes.erase(place, random() % 4 + 1);
            break;
          default:
            bytes.insert(place, random() % 3 + 1, static_cast<char>(random()));
        }
        if (bytes.empty()) bytes = valid;
      }
      ModelInferRequest proto;
      if (!proto.ParseFromString(bytes)) continue;
      for (const InferTask task : {InferTask::kWrite, InferTask::kPaint}) {
        const auto plan = PlanInfer(proto, task);
        planned += plan.ok() ? 1 : 0;
        EXPECT_TRUE(plan.ok() || absl::IsInvalidArgument(plan.status()));
      }
    }
  }
  EXPECT_GT(planned, 100);
}

}  // namespace
}  // namespace hanmo
