#include "server/open_inference/infer_response.h"

#include <cstring>
#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

using inference::ModelInferResponse;
using ::testing::ElementsAre;
using ::testing::SizeIs;

PromptResult Result(const std::string& outputs, std::vector<std::string> pixels = {}) {
  PromptResult result;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(outputs, &result.response));
  result.pixels = std::move(pixels);
  result.pixels.resize(result.response.outputs_size());
  return result;
}

template <typename Value>
std::vector<Value> Numbers(const std::string& raw) {
  std::vector<Value> values(raw.size() / sizeof(Value));
  std::memcpy(values.data(), raw.data(), raw.size());
  return values;
}

const char kShort[] = R"(outputs { text { text: "山" token_ids: 7 finish_reason: FINISH_REASON_EOS
                                          seed: 3 } })";
const char kLong[] = R"(outputs { text { text: "ab" token_ids: 8 token_ids: 9
                                         finish_reason: FINISH_REASON_LENGTH seed: 4 } })";

TEST(InferResponseTest, TextsOfABatchAreRowsOfEachTensor) {
  InferPlan plan;
  plan.batched = true;
  plan.outputs = {"text_output", "token_ids", "finish_reason", "seed"};
  ModelInferResponse response;
  AddOutputs(plan, {Result(kShort), Result(kLong)}, &response);
  ASSERT_EQ(response.outputs_size(), 4);
  ASSERT_EQ(response.raw_output_contents_size(), 4);
  EXPECT_EQ(response.outputs(0).datatype(), "BYTES");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(2, 1));
  EXPECT_EQ(response.raw_output_contents(0), std::string("\3\0\0\0山\2\0\0\0ab", 13));
  EXPECT_EQ(response.outputs(1).datatype(), "INT32");
  EXPECT_THAT(response.outputs(1).shape(), ElementsAre(2, 1, 2));
  EXPECT_THAT(Numbers<int32_t>(response.raw_output_contents(1)), ElementsAre(7, -1, 8, 9));
  EXPECT_EQ(response.raw_output_contents(2), std::string("\3\0\0\0eos\6\0\0\0length", 17));
  EXPECT_EQ(response.outputs(3).datatype(), "UINT64");
  EXPECT_THAT(Numbers<uint64_t>(response.raw_output_contents(3)), ElementsAre(3, 4));
}

TEST(InferResponseTest, OnlyWantedTensorsComeInTheOrderOfTheRequest) {
  InferPlan plan;
  plan.outputs = {"seed", "text_output"};
  ModelInferResponse response;
  AddOutputs(plan, {Result(kShort)}, &response);
  ASSERT_EQ(response.outputs_size(), 2);
  EXPECT_EQ(response.outputs(0).name(), "seed");
  EXPECT_EQ(response.outputs(1).name(), "text_output");
  EXPECT_THAT(response.outputs(1).shape(), ElementsAre(1));
}

TEST(InferResponseTest, PicturesAreFilesAndPixels) {
  InferPlan plan;
  plan.task = InferTask::kPaint;
  plan.batched = true;
  plan.outputs = {"image", "pixels", "seed", "step", "steps"};
  const auto two =
      Result(R"(outputs { picture { data: "\377a" width: 1 height: 2 seed: 5 steps: 4 } }
                             outputs { picture { data: "b" width: 1 height: 2 seed: 6 steps: 4 } })",
             {"rgbrgb", "RGBRGB"});
  ModelInferResponse response;
  AddOutputs(plan, {two}, &response);
  ASSERT_EQ(response.outputs_size(), 5);
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(1, 2));
  EXPECT_EQ(response.raw_output_contents(0), std::string("\2\0\0\0\377a\1\0\0\0b", 11));
  EXPECT_EQ(response.outputs(1).datatype(), "UINT8");
  EXPECT_THAT(response.outputs(1).shape(), ElementsAre(1, 2, 2, 1, 3));
  EXPECT_EQ(response.raw_output_contents(1), "rgbrgbRGBRGB");
  EXPECT_THAT(Numbers<uint64_t>(response.raw_output_contents(2)), ElementsAre(5, 6));
  EXPECT_THAT(Numbers<uint32_t>(response.raw_output_contents(4)), ElementsAre(4, 4));
}

TEST(InferResponseTest, PartsOfAStreamHaveThePlaceOfTheirOutput) {
  InferPlan plan;
  plan.outputs = {"text_output", "token_ids", "finish_reason", "seed"};
  ModelInferResponse delta;
  AddTextDelta(plan, 3, "a", {97}, &delta);
  EXPECT_EQ(delta.parameters().at("index").int64_param(), 3);
  ASSERT_EQ(delta.outputs_size(), 2);
  EXPECT_THAT(delta.outputs(1).shape(), ElementsAre(1, 1));
  ModelInferResponse end;
  AddTextEnd(plan, 3, Result(kShort).response.outputs(0).text(), &end);
  ASSERT_EQ(end.outputs_size(), 3);  // no new tokens
  EXPECT_EQ(end.raw_output_contents(0), std::string(4, '\0'));
  EXPECT_EQ(end.raw_output_contents(1), std::string("\3\0\0\0eos", 7));
  plan.task = InferTask::kPaint;
  plan.outputs = {"steps"};
  ModelInferResponse step;
  AddStep(plan, 0, 2, 9, &step);
  ASSERT_EQ(step.outputs_size(), 1);
  EXPECT_THAT(Numbers<uint32_t>(step.raw_output_contents(0)), ElementsAre(9));
}

}  // namespace
}  // namespace hanmo
