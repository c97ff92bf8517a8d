// Generate and GenerateStream over a real socket, with the batcher and a worker in memory.
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "png.h"
#include "prometheus/text_serializer.h"
#include "server/rpc/stream_call.h"
#include "server/rpc/testing/rpc_fixture.h"

namespace hanmo {
namespace {

using grpc::StatusCode;
using hanmo::v1::GenerateRequest;
using hanmo::v1::GenerateResponse;
using hanmo::v1::GenerateStreamResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::Proto;

class RpcTest : public testing::RpcFixture {};

TEST_F(RpcTest, GenerateWritesATextAndTellsEverythingAboutIt) {
  grpc::ClientContext context;
  GenerateResponse response;
  const grpc::Status status =
      generation_->Generate(&context, Proto(R"(model: "poet" prompt: "山水" request_id: "r-7"
                         text { max_tokens: 7 seed: 5 n: 2 logprobs: 1 })"),
                            &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_EQ(response.request_id(), "r-7");
  EXPECT_EQ(response.model(), "poet");
  ASSERT_EQ(response.outputs_size(), 2);
  for (int i = 0; i < 2; ++i) {
    const auto& text = response.outputs(i).text();
    EXPECT_EQ(response.outputs(i).index(), static_cast<uint32_t>(i));
    EXPECT_EQ(text.text(), "山水\xEF\xBF\xBD");  // seven bytes: a character is cut
    EXPECT_EQ(text.token_ids_size(), 7);
    EXPECT_EQ(text.seed(), 5u + i);
    EXPECT_EQ(text.finish_reason(), hanmo::v1::FINISH_REASON_LENGTH);
    ASSERT_EQ(text.logprobs_size(), 7);
    EXPECT_EQ(text.logprobs(0).logprob(), -0.5f);
    EXPECT_EQ(text.logprobs(0).top_size(), 1);
  }
  EXPECT_EQ(response.usage().completion_tokens(), 14u);
  const auto& metadata = context.GetServerInitialMetadata();
  const auto id = metadata.find("x-request-id");
  ASSERT_NE(id, metadata.end());
  EXPECT_EQ(std::string(id->second.data(), id->second.size()), "r-7");
}

TEST_F(RpcTest, FinishReasonsAreTrue) {
  GenerateResponse response;
  ASSERT_TRUE(
      Generate(R"(model: "poet" prompt: "abc" text { stop: "ca" max_tokens: 20 })", &response)
          .ok());
  EXPECT_EQ(response.outputs(0).text().text(), "ab");
  EXPECT_EQ(response.outputs(0).text().finish_reason(), hanmo::v1::FINISH_REASON_STOP);
  EXPECT_EQ(response.outputs(0).text().stop_reason(), "ca");
  EXPECT_THAT(response.outputs(0).text().token_ids(), ElementsAre('a', 'b', 'c', 'a'));

  ASSERT_TRUE(
      Generate(R"(model: "poet" token_ids { ids: 97 ids: 256 } text { max_tokens: 9 })", &response)
          .ok());
  EXPECT_EQ(response.outputs(0).text().text(), "a");
  EXPECT_EQ(response.outputs(0).text().finish_reason(), hanmo::v1::FINISH_REASON_EOS);
  EXPECT_EQ(response.outputs(0).text().stop_reason(), "");

  ASSERT_TRUE(
      Generate(R"(model: "poet" prompt: "abc" text { stop_token_ids: 98 })", &response).ok());
  EXPECT_EQ(response.outputs(0).text().text(), "a");
  EXPECT_EQ(response.outputs(0).text().finish_reason(), hanmo::v1::FINISH_REASON_STOP);
  EXPECT_EQ(response.outputs(0).text().stop_reason(), "98");
}

TEST_F(RpcTest, GeneratePaintsAPicture) {
  GenerateResponse response;
  const grpc::Status status = Generate(
      R"(model: "painter" prompt: "山" picture { width: 72 steps: 3 seed: 9 })", &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  const auto& picture = response.outputs(0).picture();
  EXPECT_EQ(picture.width(), 72u);
  EXPECT_EQ(picture.height(), 64u);
  EXPECT_EQ(picture.seed(), 9u);
  EXPECT_EQ(picture.steps(), 3u);
  EXPECT_EQ(picture.sampler(), "pndm");
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_TRUE(
      png_image_begin_read_from_memory(&image, picture.data().data(), picture.data().size()));
  image.format = PNG_FORMAT_RGB;
  std::string rgb(PNG_IMAGE_SIZE(image), '\0');
  ASSERT_TRUE(png_image_finish_read(&image, nullptr, rgb.data(), 0, nullptr));
  EXPECT_EQ(rgb, testing::Noise(72, 64).rgb);
}

TEST_F(RpcTest, AStreamOfTextJoinsToTheWholeText) {
  grpc::ClientContext context;
  auto reader = generation_->GenerateStream(
      &context, Proto(R"(model: "poet" prompt: "山水" text { max_tokens: 12 n: 2 })"));
  GenerateStreamResponse event;
  std::vector<std::string> texts(2);
  std::vector<int> tokens(2);
  GenerateResponse final;
  bool queued = false;
  while (reader->Read(&event)) {
    EXPECT_FALSE(final.has_usage()) << "an event after the final one";
    if (event.has_queued()) queued = true;
    if (event.has_text()) {
      texts[event.text().index()] += event.text().text();
      tokens[event.text().index()] += event.text().token_ids_size();
    }
    if (event.has_final()) final = event.final();
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(queued);
  EXPECT_THAT(texts, ElementsAre("山水山水", "山水山水"));
  EXPECT_THAT(tokens, ElementsAre(12, 12));
  ASSERT_EQ(final.outputs_size(), 2);
  EXPECT_EQ(final.outputs(1).text().text(), "山水山水");
}

TEST_F(RpcTest, AStreamedPictureComesInChunksBelowOneMebibyte) {
  grpc::ClientContext context;
  auto reader =
      generation_->GenerateStream(&context, Proto(R"(model: "painter" prompt: "山" picture {
                         width: 512 height: 512 steps: 4 count: 2 preview_every_steps: 2 })"));
  GenerateStreamResponse event;
  std::vector<std::string> files(2);
  int steps = 0;
  int previews = 0;
  bool final = false;
  while (reader->Read(&event)) {
    steps += event.has_step() ? 1 : 0;
    if (event.has_preview()) {
      ++previews;
      EXPECT_THAT(event.preview().data(), ::testing::StartsWith("\xff\xd8"));
    }
    if (event.has_picture()) {
      std::string& file = files[event.picture().index()];
      EXPECT_EQ(event.picture().offset(), file.size());
      EXPECT_LT(event.ByteSizeLong(), size_t{1} << 20);
      file += event.picture().data();
      EXPECT_LE(file.size(), event.picture().total_bytes());
    }
    if (event.has_final()) {
      final = true;
      EXPECT_EQ(event.final().outputs(1).picture().data(), "");
      EXPECT_EQ(event.final().outputs(1).picture().width(), 512u);
    }
  }
  ASSERT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(final);
  EXPECT_GE(steps, 1);
  EXPECT_GE(previews, 2);
  for (const std::string& file : files) {
    EXPECT_GT(file.size(), StreamCall::kChunkBytes);
    EXPECT_THAT(file, ::testing::StartsWith("\x89PNG"));
  }
}

TEST_F(RpcTest, CancellingAStreamEndsItsSample) {
  front_.worker().Hold();
  grpc::ClientContext context;
  auto reader = generation_->GenerateStream(
      &context, Proto(R"(model: "poet" prompt: "abc" text { max_tokens: 60 })"));
  front_.worker().AwaitSamples(1);
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  front_.worker().Release(true);
  front_.worker().AwaitSamples(0);
}

TEST_F(RpcTest, CancellingAUnaryCallEndsItsSample) {
  front_.worker().Hold();
  grpc::ClientContext context;
  std::thread canceller([&] {
    front_.worker().AwaitSamples(1);
    context.TryCancel();
  });
  GenerateResponse response;
  const grpc::Status status = generation_->Generate(
      &context, Proto(R"(model: "poet" prompt: "abc" text { max_tokens: 60 })"), &response);
  EXPECT_EQ(status.error_code(), StatusCode::CANCELLED);
  canceller.join();
  front_.worker().Release(true);
  front_.worker().AwaitSamples(0);
}

TEST_F(RpcTest, APictureWhoseClientLeavesWhileItIsEncodedIsNoSuccess) {
  absl::Notification encode;
  ASSERT_TRUE(front_.media_pool().Submit(0, [&] { encode.WaitForNotification(); }));
  grpc::ClientContext context;
  auto reader = generation_->GenerateStream(
      &context, Proto(R"(model: "painter" request_id: "left" prompt: "山" picture { steps: 3 })"));
  GenerateStreamResponse event;
  while (event.step().step() < 3) ASSERT_TRUE(reader->Read(&event));
  front_.worker().AwaitSamples(0);
  context.TryCancel();
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::CANCELLED);
  // gRPC tells the call on a thread of its choice: other calls may overtake the news.
  while (!front_.calls().Find("left").at(0)->cancelled()) {
    GenerateResponse response;
    ASSERT_TRUE(Generate(R"(model: "poet" prompt: "a" text { max_tokens: 2 })", &response).ok());
  }
  encode.Notify();
  front_.calls().AwaitNone(absl::Seconds(30));
  const std::string metrics =
      prometheus::TextSerializer().Serialize(front_.metrics().registry()->Collect());
  EXPECT_THAT(metrics, HasSubstr(R"(hanmo_requests_total{code="CANCELLED",model="painter")"
                                 R"(,task="picture"} 1)"));
}

TEST_F(RpcTest, TheDeadlineEndsARunningRequest) {
  front_.worker().Hold();
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  GenerateResponse response;
  const grpc::Status status = generation_->Generate(
      &context, Proto(R"(model: "poet" prompt: "abc" text { max_tokens: 60 })"), &response);
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  front_.worker().Release(true);
  front_.worker().AwaitSamples(0);
}

TEST_F(RpcTest, OneSlowReaderDelaysNobody) {
  grpc::ClientContext slow_context;
  // Nobody reads from it yet, and ten megabytes fit no socket buffer.
  auto slow = generation_->GenerateStream(
      &slow_context,
      Proto(R"(model: "novelist" prompt: "abc" text { max_tokens: 20000 logprobs: 20 n: 2 })"));
  for (int i = 0; i < 20; ++i) {
    GenerateResponse response;
    ASSERT_TRUE(Generate(R"(model: "poet" prompt: "xyz" text { max_tokens: 9 })", &response).ok());
    EXPECT_EQ(response.outputs(0).text().text(), "xyzxyzxyz");
  }
  // The slow one's two are parked, not finished into a growing buffer.
  front_.worker().AwaitSamples(2);
  GenerateStreamResponse event;
  GenerateResponse final;
  while (slow->Read(&event)) {
    if (event.has_final()) final = event.final();
  }
  ASSERT_TRUE(slow->Finish().ok());
  ASSERT_EQ(final.outputs_size(), 2);
  for (const auto& output : final.outputs()) EXPECT_EQ(output.text().token_ids_size(), 20000);
}

TEST_F(RpcTest, BadRequestsCarryTheirFields) {
  grpc::ClientContext context;
  GenerateResponse response;
  const grpc::Status status = generation_->Generate(
      &context, Proto(R"(model: "poet" prompt: "a" text { top_p: 7 n: 99 })"), &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  google::rpc::Status details;
  ASSERT_TRUE(details.ParseFromString(status.error_details()));
  google::rpc::BadRequest bad;
  ASSERT_EQ(details.details_size(), 1);
  ASSERT_TRUE(details.details(0).UnpackTo(&bad));
  ASSERT_EQ(bad.field_violations_size(), 2);
  EXPECT_EQ(bad.field_violations(0).field(), "text.top_p");
  EXPECT_EQ(bad.field_violations(1).field(), "text.n");
}

TEST_F(RpcTest, BadInputNeverReachesTheWorker) {
  GenerateResponse response;
  EXPECT_EQ(Generate(R"(model: "nobody" prompt: "a")", &response).error_code(),
            StatusCode::NOT_FOUND);
  GenerateRequest broken = Proto(R"(model: "poet")");
  broken.set_prompt("\xff\xfe");
  grpc::ClientContext context;
  const grpc::Status status = generation_->Generate(&context, broken, &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "prompt: must be valid UTF-8");
  grpc::ClientContext stream_context;
  auto reader = generation_->GenerateStream(&stream_context, broken);
  GenerateStreamResponse event;
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_EQ(reader->Finish().error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(front_.worker().steps(), 0u);
}

// Headers would be the beginning of an answer, after which gRPC does not try again.
TEST_F(RpcTest, ARefusalHasNoHeadersAndTellsTheRequestIdInItsTrailers) {
  const GenerateRequest request = Proto(R"(model: "poet" prompt: "a" request_id: "r-8"
                         text { max_tokens: 0 })");
  const auto check = [](const grpc::ClientContext& context) {
    EXPECT_EQ(context.GetServerInitialMetadata().count("x-request-id"), 0u);
    const auto& trailers = context.GetServerTrailingMetadata();
    ASSERT_EQ(trailers.count("x-request-id"), 1u);
    EXPECT_EQ(trailers.find("x-request-id")->second, "r-8");
  };
  grpc::ClientContext context;
  GenerateResponse response;
  EXPECT_FALSE(generation_->Generate(&context, request, &response).ok());
  check(context);
  grpc::ClientContext stream_context;
  auto reader = generation_->GenerateStream(&stream_context, request);
  GenerateStreamResponse event;
  EXPECT_FALSE(reader->Read(&event));
  EXPECT_FALSE(reader->Finish().ok());
  check(stream_context);
}

TEST_F(RpcTest, ALongPromptIsTokenizedElsewhereAndRefusedByItsLength) {
  GenerateRequest request = Proto(R"(model: "poet")");
  request.set_prompt(std::string(100000, 'a'));
  grpc::ClientContext context;
  GenerateResponse response;
  const grpc::Status status = generation_->Generate(&context, request, &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("at most 63 tokens for this model, got 100000"));
}

TEST_F(RpcTest, ADrainingServerFinishesWhatItTookAndRefusesTheRest) {
  front_.worker().Hold();
  grpc::ClientContext context;
  auto reader = generation_->GenerateStream(
      &context, Proto(R"(model: "poet" prompt: "abc" text { max_tokens: 6 })"));
  front_.worker().AwaitSamples(1);
  front_.batcher().Drain();
  GenerateResponse response;
  grpc::ClientContext late_context;
  const grpc::Status late =
      generation_->Generate(&late_context, Proto(R"(model: "poet" prompt: "a")"), &response);
  EXPECT_EQ(late.error_code(), StatusCode::UNAVAILABLE);
  const auto& trailers = late_context.GetServerTrailingMetadata();
  EXPECT_EQ(trailers.count("grpc-retry-pushback-ms"), 1u);
  front_.worker().Release(true);
  GenerateStreamResponse event;
  std::string text;
  while (reader->Read(&event)) text += event.text().text();
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(text, "abcabc");
  EXPECT_TRUE(front_.calls().AwaitNone(absl::Seconds(10)));
}

}  // namespace
}  // namespace hanmo
