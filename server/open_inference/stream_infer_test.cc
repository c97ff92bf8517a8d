// ModelStreamInfer over a real socket, with the batcher and a worker in memory.
#include "server/open_inference/stream_infer.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/open_inference/testing/infer_fixture.h"

namespace hanmo {
namespace {

using grpc::StatusCode;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;
using ::testing::ElementsAre;
using testing::IsFinal;
using testing::PictureRequest;
using testing::Tensor;
using testing::TextRequest;
using testing::Texts;

class StreamInferTest : public testing::InferFixture {};

TEST_F(StreamInferTest, AStreamedTextJoinsAndItsLastResponseSaysSo) {
  const auto responses = Streamed(TextRequest({"山水", "ab"}, 12, "id: 's'"));
  std::vector<std::string> texts(2);
  std::vector<std::string> reasons(2);
  for (size_t i = 0; i < responses.size(); ++i) {
    EXPECT_EQ(responses[i].id(), "s");
    EXPECT_EQ(IsFinal(responses[i]), i + 1 == responses.size());
    const auto index = static_cast<size_t>(responses[i].parameters().at("index").int64_param());
    for (const std::string& text : Texts(responses[i], "text_output")) texts.at(index) += text;
    for (const std::string& reason : Texts(responses[i], "finish_reason")) {
      reasons.at(index) += reason;
    }
  }
  EXPECT_THAT(texts, ElementsAre("山水山水", "abababababab"));
  EXPECT_THAT(reasons, ElementsAre("length", "length"));
}

TEST_F(StreamInferTest, AnEmptyLastResponseComesWhenAskedFor) {
  const std::string option =
      "parameters { key: 'triton_enable_empty_final_response' value { bool_param: true } } ";
  for (const bool parts : {true, false}) {
    const auto responses =
        Streamed(TextRequest({"ab"}, 3,
                             absl::StrCat(option, "parameters { key: 'stream' value { bool_param: ",
                                          parts ? "true" : "false", " } }")));
    ASSERT_GE(responses.size(), 2u);
    EXPECT_TRUE(IsFinal(responses.back()));
    EXPECT_EQ(responses.back().outputs_size(), 0);
    for (size_t i = 0; i + 1 < responses.size(); ++i) EXPECT_FALSE(IsFinal(responses[i]));
  }
}

TEST_F(StreamInferTest, WithoutPartsAStreamGivesOneResponse) {
  const auto responses =
      Streamed(TextRequest({"ab"}, 3, "parameters { key: 'stream' value { bool_param: false } }"));
  ASSERT_EQ(responses.size(), 1u);
  EXPECT_TRUE(IsFinal(responses[0]));
  EXPECT_THAT(Texts(responses[0], "text_output"), ElementsAre("aba"));
}

TEST_F(StreamInferTest, AStreamedPictureTellsItsSteps) {
  const auto responses =
      Streamed(PictureRequest("parameters { key: 'steps' value { int64_param: 3 } }"
                              "parameters { key: 'count' value { int64_param: 2 } }"));
  std::vector<int> steps(2);
  std::vector<std::string> files(2);
  for (const auto& response : responses) {
    const auto index = static_cast<size_t>(response.parameters().at("index").int64_param());
    if (const std::string* step = Tensor(response, "step")) {
      EXPECT_EQ((*step)[0], ++steps.at(index));
      EXPECT_EQ((*Tensor(response, "steps"))[0], 3);
    }
    for (const std::string& file : Texts(response, "image")) files.at(index) += file;
  }
  EXPECT_THAT(steps, ElementsAre(3, 3));
  hanmo::v1::GenerateResponse ours;
  ASSERT_TRUE(Generate(R"(model: "painter" prompt: "山" picture { steps: 3 })", &ours).ok());
  EXPECT_THAT(files,
              ElementsAre(ours.outputs(0).picture().data(), ours.outputs(0).picture().data()));
}

TEST_F(StreamInferTest, AFailedRequestLeavesTheOthersOfItsStream) {
  grpc::ClientContext context;
  auto stream = inference_->ModelStreamInfer(&context);
  stream->Write(TextRequest({"a"}, 500, "id: 'bad'"));
  ModelStreamInferResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.error_message(), "max_tokens: must be in [1, 64], got 500");
  EXPECT_EQ(response.infer_response().id(), "bad");
  EXPECT_TRUE(IsFinal(response.infer_response()));
  stream->Write(TextRequest({"ab"}, 4, "id: 'good'"));
  std::string text;
  do {
    ASSERT_TRUE(stream->Read(&response));
    EXPECT_EQ(response.error_message(), "");
    EXPECT_EQ(response.infer_response().id(), "good");
    for (const std::string& part : Texts(response.infer_response(), "text_output")) text += part;
  } while (!IsFinal(response.infer_response()));
  EXPECT_EQ(text, "abab");
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(StreamInferTest, AnIdThatIsNotUtf8IsNotEchoed) {
  grpc::ClientContext context;
  auto stream = inference_->ModelStreamInfer(&context);
  stream->Write(TextRequest({"a"}, 2, "id: '\\377'"));
  ModelStreamInferResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.error_message(), "id: must be valid UTF-8");
  EXPECT_EQ(response.infer_response().id(), "");
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(StreamInferTest, ErrorsEndTheStreamOfAClientThatAsksForIt) {
  front_.worker().Hold();
  grpc::ClientContext context;
  context.AddMetadata("triton_grpc_error", "true");
  auto stream = inference_->ModelStreamInfer(&context);
  stream->Write(TextRequest({"ab"}, 60));
  front_.worker().AwaitSamples(1);
  stream->Write(TextRequest({"a"}, 500));
  ModelStreamInferResponse response;
  front_.worker().Release(true);
  while (stream->Read(&response)) EXPECT_EQ(response.error_message(), "");
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "max_tokens: must be in [1, 64], got 500");
  front_.worker().AwaitSamples(0);
}

TEST_F(StreamInferTest, CancellingAStreamEndsAllItsRequests) {
  front_.worker().Hold();
  grpc::ClientContext context;
  auto stream = inference_->ModelStreamInfer(&context);
  stream->Write(TextRequest({"ab", "cd"}, 60));
  stream->Write(TextRequest({"ef"}, 60));
  front_.worker().AwaitSamples(3);
  context.TryCancel();
  EXPECT_EQ(stream->Finish().error_code(), StatusCode::CANCELLED);
  front_.worker().Release(true);
  front_.worker().AwaitSamples(0);
  EXPECT_TRUE(front_.calls().AwaitNone(absl::Seconds(30)));
}

TEST_F(StreamInferTest, RequestsOfOneStreamRunSideBySideUpToABound) {
  front_.worker().Hold();
  grpc::ClientContext context;
  auto stream = inference_->ModelStreamInfer(&context);
  constexpr size_t kRequests = StreamInfer::kMaxCalls + 8;
  for (size_t i = 0; i < kRequests; ++i) {
    stream->Write(TextRequest({"ab"}, 4, absl::StrCat("id: 'r", i, "'")));
  }
  stream->WritesDone();
  front_.worker().AwaitSamples(64);
  front_.worker().Release(true);
  size_t ended = 0;
  ModelStreamInferResponse response;
  while (stream->Read(&response)) {
    EXPECT_EQ(response.error_message(), "");
    ended += IsFinal(response.infer_response()) ? 1 : 0;
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(ended, kRequests);
}

TEST_F(StreamInferTest, ASlowReaderIsParkedAndLosesNothing) {
  grpc::ClientContext context;
  auto stream = inference_->ModelStreamInfer(&context);
  // Nobody reads yet, and the responses fit no socket buffer.
  ModelInferRequest request = TextRequest({"abc"}, 60000);
  request.set_model_name("novelist");
  stream->Write(request);
  for (int i = 0; i < 20; ++i) {
    ModelInferResponse response;
    ASSERT_TRUE(Infer(TextRequest({"xyz"}, 9), &response).ok());
    EXPECT_THAT(Texts(response, "text_output"), ElementsAre("xyzxyzxyz"));
  }
  front_.worker().AwaitSamples(1);  // parked, not finished into a growing buffer
  stream->WritesDone();
  std::string text;
  ModelStreamInferResponse response;
  while (stream->Read(&response)) {
    for (const std::string& part : Texts(response.infer_response(), "text_output")) text += part;
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(text.size(), 60000u);
}

TEST_F(StreamInferTest, ADrainingServerFinishesWhatItTookFromAStream) {
  front_.worker().Hold();
  grpc::ClientContext context;
  auto stream = inference_->ModelStreamInfer(&context);
  stream->Write(TextRequest({"abc"}, 6));
  front_.worker().AwaitSamples(1);
  front_.batcher().Drain();
  stream->Write(TextRequest({"late"}, 6, "id: 'late'"));
  ModelStreamInferResponse response;
  std::string text;
  std::string refusal;
  front_.worker().Release(true);
  stream->WritesDone();
  while (stream->Read(&response)) {
    if (response.infer_response().id() == "late") refusal = response.error_message();
    for (const std::string& part : Texts(response.infer_response(), "text_output")) text += part;
  }
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(text, "abcabc");
  EXPECT_NE(refusal, "");
  EXPECT_TRUE(front_.calls().AwaitNone(absl::Seconds(10)));
}

TEST_F(StreamInferTest, AStreamThatIsKeptOpenEndsWithTheServer) {
  grpc::ClientContext context;
  auto stream = inference_->ModelStreamInfer(&context);
  stream->Write(TextRequest({"ab"}, 1));
  ModelStreamInferResponse response;
  while (stream->Read(&response) && !IsFinal(response.infer_response())) {
  }
  front_.server().Shutdown(absl::Seconds(30));
  EXPECT_FALSE(stream->Read(&response));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "the server is shutting down");
}

}  // namespace
}  // namespace hanmo
