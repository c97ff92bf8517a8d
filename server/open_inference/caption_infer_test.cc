// Texts about pictures by ModelInfer, over a real socket.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/media/testing/picture_goldens.h"
#include "server/open_inference/testing/infer_fixture.h"

namespace hanmo {
namespace {

using grpc::StatusCode;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using ::testing::ElementsAre;
using testing::Request;
using testing::Texts;

class CaptionInferTest : public testing::InferFixture {};

TEST_F(CaptionInferTest, ACaptionIsThatOfGenerate) {
  const std::string files[] = {testing::PictureGolden("files/rgb.jpg"),
                               testing::PictureGolden("files/lossless.webp")};
  ModelInferRequest request = Request(
      "model_name: 'scribe' inputs { name: 'image' datatype: 'BYTES' shape: [2, 1] } "
      "parameters { key: 'max_tokens' value { int64_param: 6 } } "
      "parameters { key: 'seed' value { int64_param: 5 } } "
      "parameters { key: 'n' value { int64_param: 2 } }");
  for (const std::string& file : files) {
    request.mutable_inputs(0)->mutable_contents()->add_bytes_contents(file);
  }
  ModelInferResponse response;
  const grpc::Status status = Infer(request, &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(2, 2));
  std::vector<std::string> expected;
  for (const std::string& file : files) {
    hanmo::v1::GenerateRequest ours =
        testing::Proto(R"(model: "scribe" text { max_tokens: 6 seed: 5 n: 2 })");
    ours.mutable_parts()->add_parts()->mutable_picture()->set_data(file);
    grpc::ClientContext context;
    hanmo::v1::GenerateResponse answer;
    ASSERT_TRUE(generation_->Generate(&context, ours, &answer).ok());
    for (const auto& output : answer.outputs()) expected.push_back(output.text().text());
  }
  EXPECT_EQ(Texts(response, "text_output"), expected);
  EXPECT_NE(expected[0], expected[2]);

  // Where one is no picture, the error says which.
  request.mutable_inputs(0)->mutable_contents()->set_bytes_contents(1, "GIF89a");
  const grpc::Status refused = Infer(request, &response);
  EXPECT_EQ(refused.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), ::testing::StartsWith("image[1]: "));
}

}  // namespace
}  // namespace hanmo
