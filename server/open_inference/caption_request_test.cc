// Requests for texts about pictures, to a model that paints, too.
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/open_inference/infer_request.h"
#include "server/open_inference/model_tensors.h"
#include "server/open_inference/testing/infer_protos.h"
#include "server/rpc/violations.h"

namespace hanmo {
namespace {

using ::testing::ElementsAre;
using testing::ErrorOf;
using ::testing::HasSubstr;
using testing::Input;
using testing::Parameter;
using testing::Proto;
using ::testing::SizeIs;
using testing::Words;

const std::string kPaintPrompt = Words("prompt", "1", "'山'");
// Files need not be UTF-8.
const std::string kOneFile = Words("image", "1", "'\\x89PNG'");
const std::string kTwoFiles = Words("image", "2, 1", "'\\x89PNG', '\\xff\\xd8'");

absl::StatusOr<InferPlan> Caption(const std::string& proto) {
  return PlanInfer(Proto(proto), InferTask::kCaption);
}

TEST(CaptionRequestTest, AnImageMakesItARequestForACaption) {
  EXPECT_EQ(TaskOf(Proto(kOneFile), ModelKind::kPictureTokens), InferTask::kCaption);
  EXPECT_EQ(TaskOf(Proto(kPaintPrompt), ModelKind::kPictureTokens), InferTask::kPaintByTokens);
  EXPECT_EQ(TaskOf(Proto(kOneFile), ModelKind::kPicture), InferTask::kPaint);
  EXPECT_EQ(TaskOf(Proto(kOneFile), ModelKind::kText), InferTask::kWrite);
  EXPECT_EQ(ErrorOf(PlanInfer(Proto(""), InferTask::kPaintByTokens)),
            "prompt: is required where there is no image");
}

TEST(CaptionRequestTest, CaptionsOfSeveralPictures) {
  const auto plan = Caption(absl::StrCat(kTwoFiles, Words("text_input", "2,1", "'', '湖上'"),
                                         Input("seed", "INT64", "2,1", "int64_contents: [5, 6]"),
                                         Parameter("max_tokens", "int64_param: 3"),
                                         Parameter("top_k", "int64_param: 2")));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_TRUE(plan->batched);
  EXPECT_THAT(plan->outputs, ElementsAre("text_output", "token_ids", "finish_reason", "seed"));
  ASSERT_THAT(plan->requests, SizeIs(2));
  hanmo::v1::GenerateRequest expected;
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"(parts { parts { picture { data: "\x89PNG" } } } text { max_tokens: 3 top_k: 2 seed: 5 })",
      &expected));
  EXPECT_EQ(plan->requests[0].ShortDebugString(), expected.ShortDebugString());
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"(parts { parts { picture { data: "\xff\xd8" } } parts { text: "湖上" } }
         text { max_tokens: 3 top_k: 2 seed: 6 })",
      &expected));
  EXPECT_EQ(plan->requests[1].ShortDebugString(), expected.ShortDebugString());
  // One beginning is for all of them.
  EXPECT_EQ(
      Caption(kTwoFiles + Words("text_input", "1", "'一'"))->requests[1].parts().parts(1).text(),
      "一");
}

TEST(CaptionRequestTest, CaptionsTakeWhatBelongsToThem) {
  EXPECT_EQ(ErrorOf(Caption(Words("image", "1,2", "'a', 'b'"))),
            "image: shape must be [prompts] or [prompts,1], got [1,2]");
  EXPECT_EQ(ErrorOf(Caption(Words("image", "0", ""))), "image: must be 1 to 64 prompts, got 0");
  EXPECT_EQ(ErrorOf(Caption(Input("image", "UINT8", "1", "uint_contents: 1"))),
            "image: datatype must be BYTES");
  EXPECT_EQ(ErrorOf(Caption(kTwoFiles + Words("text_input", "3", "'a', 'b', 'c'"))),
            "text_input: must have 1 element or one for each of the 2 prompts, got 3");
  EXPECT_EQ(ErrorOf(Caption(kOneFile + Words("text_input", "1", "'\\xff'"))),
            "text_input: element 0 must be valid UTF-8");
  EXPECT_THAT(ErrorOf(Caption(kOneFile + kPaintPrompt)),
              HasSubstr("inputs: must be of image, text_input, max_tokens"));
  EXPECT_THAT(ErrorOf(Caption(kOneFile + Words("regex", "1", "'a'"))), HasSubstr("got regex"));
  EXPECT_THAT(ErrorOf(Caption(kOneFile + "outputs { name: 'image' }")),
              HasSubstr("outputs: must be of text_output"));
}

TEST(CaptionRequestTest, AModelOfTwoTasksHasTheTensorsOfBoth) {
  std::set<std::string> inputs, outputs;
  for (const TensorSpec& tensor : InputsOf(ModelKind::kPictureTokens)) {
    EXPECT_TRUE(inputs.insert(tensor.name).second) << tensor.name;
  }
  for (const TensorSpec& tensor : OutputsOf(ModelKind::kPictureTokens)) {
    EXPECT_TRUE(outputs.insert(tensor.name).second) << tensor.name;
  }
  EXPECT_THAT(inputs, ::testing::IsSupersetOf(
                          {"prompt", "image", "text_input", "count", "n", "temperature"}));
  EXPECT_THAT(inputs, ::testing::Not(::testing::Contains("guidance")));
  EXPECT_THAT(outputs, ::testing::IsSupersetOf({"image", "text_output", "seed", "pixels"}));
}

TEST(CaptionRequestTest, ErrorsGetTheNamesOfTheTensors) {
  Violations violations;
  violations.Add("parts.parts[0].picture.data", "is no PNG, JPEG or WebP file");
  violations.Add("parts.parts[1].text", "must be at most 19 tokens");
  EXPECT_EQ(WithTensorNames(violations.ToStatus(), InferTask::kCaption, 1).message(),
            "image[1]: is no PNG, JPEG or WebP file; text_input[1]: must be at most 19 tokens");
}

}  // namespace
}  // namespace hanmo
