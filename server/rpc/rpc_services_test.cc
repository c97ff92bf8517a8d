// Tokenize, Detokenize, Models and Health over a real socket.
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "prometheus/text_serializer.h"
#include "server/rpc/testing/rpc_fixture.h"

namespace hanmo {
namespace {

using grpc::StatusCode;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class RpcServicesTest : public testing::RpcFixture {};

TEST_F(RpcServicesTest, TokenizeAndDetokenizeAreInverse) {
  grpc::ClientContext context;
  hanmo::v1::TokenizeRequest request;
  request.set_model("poet");
  request.set_text("a 山");
  hanmo::v1::TokenizeResponse tokens;
  ASSERT_TRUE(generation_->Tokenize(&context, request, &tokens).ok());
  EXPECT_THAT(tokens.ids(), ElementsAre('a', ' ', 0xE5, 0xB1, 0xB1));
  EXPECT_THAT(tokens.tokens(), ElementsAre("a", "Ġ", "å", "±", "±"));

  grpc::ClientContext back_context;
  hanmo::v1::DetokenizeRequest back;
  back.set_model("poet");
  *back.mutable_ids() = tokens.ids();
  back.add_ids(256);
  back.set_skip_special_tokens(true);
  hanmo::v1::DetokenizeResponse text;
  ASSERT_TRUE(generation_->Detokenize(&back_context, back, &text).ok());
  EXPECT_EQ(text.text(), "a 山");
  EXPECT_THAT(text.pieces(), ElementsAre("a", " ", "\xE5", "\xB1", "\xB1", ""));

  grpc::ClientContext bad_context;
  back.add_ids(257);
  const grpc::Status bad = generation_->Detokenize(&bad_context, back, &text);
  EXPECT_EQ(bad.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(bad.error_message(), HasSubstr("ids[6]: must be below the vocabulary size 257"));
}

TEST_F(RpcServicesTest, CallsAreCountedByMethodAndCode) {
  {
    grpc::ClientContext context;
    hanmo::v1::ListModelsResponse list;
    ASSERT_TRUE(models_->ListModels(&context, {}, &list).ok());
  }
  grpc::ClientContext context;
  hanmo::v1::DescribeModelRequest request;
  hanmo::v1::DescribeModelResponse model;
  request.set_name("nobody");
  EXPECT_EQ(models_->DescribeModel(&context, request, &model).error_code(), StatusCode::NOT_FOUND);
  const std::string text =
      prometheus::TextSerializer().Serialize(front_.metrics().registry()->Collect());
  EXPECT_THAT(text, HasSubstr("grpc_server_handled_total{grpc_code=\"OK\","
                              "grpc_method=\"ListModels\",grpc_service=\"hanmo.v1.Models\","
                              "grpc_type=\"unary\"} 1"));
  EXPECT_THAT(text, HasSubstr("grpc_server_handled_total{grpc_code=\"NOT_FOUND\","
                              "grpc_method=\"DescribeModel\""));
}

TEST_F(RpcServicesTest, ModelsAreListedAndDescribed) {
  grpc::ClientContext context;
  hanmo::v1::ListModelsResponse list;
  ASSERT_TRUE(models_->ListModels(&context, {}, &list).ok());
  ASSERT_EQ(list.models_size(), 5);
  EXPECT_EQ(list.models(0).name(), "broken");
  EXPECT_EQ(list.models(0).state(), hanmo::v1::MODEL_STATE_FAILED);
  EXPECT_EQ(list.models(3).name(), "poet");
  EXPECT_EQ(list.models(3).state(), hanmo::v1::MODEL_STATE_READY);
  ASSERT_EQ(list.models(3).versions_size(), 1);
  EXPECT_EQ(list.models(3).versions(0).version(), 1u);
  EXPECT_TRUE(list.models(3).versions(0).is_default());

  grpc::ClientContext describe_context;
  hanmo::v1::DescribeModelRequest request;
  hanmo::v1::DescribeModelResponse model;
  request.set_name("painter");
  ASSERT_TRUE(models_->DescribeModel(&describe_context, request, &model).ok());
  EXPECT_EQ(model.picture().size_multiple(), 8u);
  EXPECT_THAT(model.picture().samplers(), SizeIs(7));

  grpc::ClientContext broken_context;
  request.set_name("broken");
  ASSERT_TRUE(models_->DescribeModel(&broken_context, request, &model).ok());
  EXPECT_EQ(model.state_detail(), "config.json lacks n_positions");

  grpc::ClientContext unknown_context;
  request.set_name("nobody");
  EXPECT_EQ(models_->DescribeModel(&unknown_context, request, &model).error_code(),
            StatusCode::NOT_FOUND);
}

TEST_F(RpcServicesTest, HealthIsToldByNameAndWatched) {
  EXPECT_EQ(Health(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("hanmo.v1.Generation"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("inference.GRPCInferenceService"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("hanmo.v1.Models"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("poet"), HealthCheckResponse::SERVING);
  EXPECT_EQ(Health("broken"), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("nobody"), HealthCheckResponse::SERVICE_UNKNOWN);

  grpc::ClientContext context;
  HealthCheckRequest request;
  HealthCheckResponse response;
  request.set_service("poet");
  auto watch = health_->Watch(&context, request);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  front_.models().RemoveWorker(0);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  front_.models().SetLoaded(0, 0, {});
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVING);
  front_.server().DrainHealth();
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Health("hanmo.v1.Models"), HealthCheckResponse::NOT_SERVING);
  front_.server().EndHealthWatches();
  EXPECT_FALSE(watch->Read(&response));
  EXPECT_EQ(watch->Finish().error_code(), StatusCode::UNAVAILABLE);
}

TEST_F(RpcServicesTest, AnUnknownNameIsWatchedAsUnknown) {
  grpc::ClientContext context;
  HealthCheckRequest request;
  HealthCheckResponse response;
  request.set_service("nobody");
  auto watch = health_->Watch(&context, request);
  ASSERT_TRUE(watch->Read(&response));
  EXPECT_EQ(response.status(), HealthCheckResponse::SERVICE_UNKNOWN);
  context.TryCancel();
  EXPECT_EQ(watch->Finish().error_code(), StatusCode::CANCELLED);
}

}  // namespace
}  // namespace hanmo
