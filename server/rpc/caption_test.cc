// Texts about pictures and pictures painted by tokens, over a real socket.
#include <thread>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/media/picture_decoder.h"
#include "server/media/picture_resizer.h"
#include "server/media/testing/picture_goldens.h"
#include "server/rpc/testing/rpc_fixture.h"

namespace hanmo {
namespace {

using grpc::StatusCode;
using hanmo::v1::GenerateRequest;
using hanmo::v1::GenerateResponse;
using hanmo::v1::GenerateStreamResponse;
using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string PictureFile(const std::string& name) { return testing::PictureGolden("files/" + name); }

GenerateRequest Caption(const std::string& file, const std::string& text = "") {
  GenerateRequest proto = testing::Proto(R"(model: "scribe" text { )" + text + " }");
  proto.mutable_parts()->add_parts()->mutable_picture()->set_data(PictureFile(file));
  return proto;
}

// What the worker in memory tells of it.
std::string Seen(const std::string& file, uint32_t tokens) {
  static const std::string kWords[] = {"山", "水", "一", "二", "三"};
  const Pixels pixels = FitPicture(*DecodePicture(PictureFile(file)), 16, 16);
  std::string text;
  for (uint32_t i = 0; i < tokens; ++i) text += kWords[testing::SeenIn(pixels.rgb, i) - 5];
  return text;
}

class CaptionRpcTest : public testing::RpcFixture {
 protected:
  grpc::Status Ask(const GenerateRequest& request, GenerateResponse* response) {
    grpc::ClientContext context;
    return generation_->Generate(&context, request, response);
  }
};

TEST_F(CaptionRpcTest, APictureBecomesAText) {
  GenerateResponse response;
  const auto status = Ask(Caption("rgb.jpg", "max_tokens: 6 n: 2 seed: 5"), &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  ASSERT_EQ(response.outputs_size(), 2);
  EXPECT_EQ(response.outputs(1).text().text(), Seen("rgb.jpg", 6));
  EXPECT_EQ(response.outputs(1).text().token_ids_size(), 6);
  EXPECT_EQ(response.outputs(1).text().seed(), 6u);
  EXPECT_EQ(response.outputs(1).text().finish_reason(), hanmo::v1::FINISH_REASON_LENGTH);
  // The picture's four tokens and [BOT]; not the padding.
  EXPECT_EQ(response.usage().prompt_tokens(), 5u);
  EXPECT_EQ(response.usage().completion_tokens(), 12u);
  EXPECT_EQ(response.usage().pictures(), 0u);
}

TEST_F(CaptionRpcTest, ItsTextIsStreamedAsAnyOther) {
  grpc::ClientContext context;
  auto reader =
      generation_->GenerateStream(&context, Caption("lossless.webp", "max_tokens: 9 logprobs: 1"));
  GenerateStreamResponse event;
  std::string text;
  int logprobs = 0;
  while (reader->Read(&event)) {
    text += event.text().text();
    logprobs += event.text().logprobs_size();
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, Seen("lossless.webp", 9));
  EXPECT_EQ(logprobs, 9);
  EXPECT_EQ(event.final().outputs(0).text().text(), text);
}

TEST_F(CaptionRpcTest, ABadFileIsRefusedAndNothingElseIsLost) {
  front_.worker().Hold();
  std::thread other([&] {
    GenerateResponse response;
    EXPECT_TRUE(Generate(R"(model: "poet" prompt: "abc" text { max_tokens: 6 })", &response).ok());
    EXPECT_EQ(response.outputs(0).text().text(), "abcabc");
  });
  front_.worker().AwaitSamples(1);
  for (const char* file :
       {"bomb.png", "bomb.jpg", "cut.jpg", "crc.png", "noisy.webp", "text.jpg"}) {
    GenerateResponse response;
    const grpc::Status status = Ask(Caption(file), &response);
    EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT) << file;
    EXPECT_THAT(status.error_message(), StartsWith("parts.parts[0].picture.data: ")) << file;
  }
  EXPECT_EQ(front_.worker().samples(), 1u);
  front_.worker().Release(true);
  other.join();
}

TEST_F(CaptionRpcTest, ARequestCancelledBeforeItsPictureIsReadCostsNothing) {
  absl::Notification decode;
  ASSERT_TRUE(front_.media_pool().Submit(0, [&] { decode.WaitForNotification(); }));
  GenerateRequest request = Caption("rgb.png");
  request.set_request_id("c-1");
  grpc::ClientContext context;
  auto reader = generation_->GenerateStream(&context, request);
  hanmo::v1::CancelRequest cancel;
  cancel.set_request_id("c-1");
  grpc::Status found;
  do {  // until the call is there
    grpc::ClientContext cancel_context;
    hanmo::v1::CancelResponse response;
    found = generation_->Cancel(&cancel_context, cancel, &response);
  } while (found.error_code() == StatusCode::NOT_FOUND);
  decode.Notify();
  EXPECT_TRUE(found.ok()) << found.error_message();
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  EXPECT_EQ(front_.worker().steps(), 0u);
}

TEST_F(CaptionRpcTest, ManyPicturesThatWaitAreRefusedNotKept) {
  absl::Notification decode, decoded;
  ASSERT_TRUE(front_.media_pool().Submit(0, [&] { decode.WaitForNotification(); }));
  ASSERT_TRUE(front_.media_pool().Submit(64 << 20, [&] { decoded.Notify(); }));
  GenerateResponse response;
  const grpc::Status status = Ask(Caption("rgb.png"), &response);
  EXPECT_EQ(status.error_code(), StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(status.error_message(), HasSubstr("too many pictures are waiting to be read"));
  decode.Notify();
  decoded.WaitForNotification();
}

TEST_F(CaptionRpcTest, APictureIsPaintedByTokensWithAnEventForEachRow) {
  grpc::ClientContext context;
  auto reader = generation_->GenerateStream(
      &context, testing::Proto(R"(model: "scribe" prompt: "山水" picture { seed: 9 })"));
  GenerateStreamResponse event;
  std::vector<uint32_t> steps;
  std::string file;
  while (reader->Read(&event)) {
    if (event.has_step()) steps.push_back(event.step().step());
    file += event.picture().data();
  }
  const grpc::Status status = reader->Finish();
  ASSERT_TRUE(status.ok()) << status.error_message();
  // Two that wait become one.
  EXPECT_THAT(steps, ::testing::AnyOf(::testing::ElementsAre(2, 4), ::testing::ElementsAre(4)));
  EXPECT_THAT(file, StartsWith("\x89PNG"));
  const auto& picture = event.final().outputs(0).picture();
  EXPECT_EQ(picture.width(), 16u);
  EXPECT_EQ(picture.seed(), 9u);
  EXPECT_EQ(picture.steps(), 4u);
  EXPECT_EQ(picture.sampler(), "");
  EXPECT_EQ(event.final().usage().steps(), 4u);
  EXPECT_EQ(event.final().usage().pictures(), 1u);
  EXPECT_EQ(event.final().usage().prompt_tokens(), 5u);
  EXPECT_EQ(event.final().usage().completion_tokens(), 0u);
}

TEST_F(CaptionRpcTest, TheModelIsDescribedAsPainterAndAsWriter) {
  grpc::ClientContext context;
  hanmo::v1::DescribeModelRequest request;
  hanmo::v1::DescribeModelResponse model;
  request.set_name("scribe");
  ASSERT_TRUE(models_->DescribeModel(&context, request, &model).ok());
  EXPECT_THAT(model.tasks(), ::testing::ElementsAre(hanmo::v1::TASK_TEXT_TO_PICTURE,
                                                    hanmo::v1::TASK_PICTURE_TO_TEXT));
  EXPECT_EQ(model.text().context_tokens(), 20u);
  EXPECT_EQ(model.text().vocabulary_size(), 38u);
  EXPECT_TRUE(model.picture().paints_by_tokens());
  EXPECT_EQ(model.picture().default_width(), 16u);
  EXPECT_EQ(model.picture().default_top_k(), 5u);
  EXPECT_EQ(model.picture().samplers_size(), 0);
}

}  // namespace
}  // namespace hanmo
