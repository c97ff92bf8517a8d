// ModelInfer and the descriptions of models over a real socket, with the batcher and a worker in
// memory.
#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/open_inference/testing/infer_fixture.h"

namespace hanmo {
namespace {

using grpc::StatusCode;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::PictureRequest;
using testing::Request;
using testing::Tensor;
using testing::TextRequest;
using testing::Texts;

class OpenInferenceTest : public testing::InferFixture {};

TEST_F(OpenInferenceTest, ATextIsThatOfGenerate) {
  grpc::ClientContext context;
  ModelInferResponse response;
  const grpc::Status status = inference_->ModelInfer(
      &context,
      TextRequest({"山水"}, 7,
                  "id: 'r-7' parameters { key: 'seed' value { int64_param: 5 } } "
                  "parameters { key: 'n' value { int64_param: 2 } }"),
      &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  hanmo::v1::GenerateResponse ours;
  ASSERT_TRUE(
      Generate(R"(model: "poet" prompt: "山水" text { max_tokens: 7 seed: 5 n: 2 })", &ours).ok());
  EXPECT_EQ(response.id(), "r-7");
  EXPECT_EQ(response.model_name(), "poet");
  EXPECT_EQ(response.model_version(), "1");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(2));
  EXPECT_THAT(Texts(response, "text_output"),
              ElementsAre(ours.outputs(0).text().text(), ours.outputs(1).text().text()));
  EXPECT_THAT(Texts(response, "finish_reason"), ElementsAre("length", "length"));
  uint64_t seeds[2];
  ASSERT_EQ(Tensor(response, "seed")->size(), sizeof(seeds));
  std::memcpy(seeds, Tensor(response, "seed")->data(), sizeof(seeds));
  EXPECT_THAT(seeds, ElementsAre(5, 6));
  const auto& metadata = context.GetServerInitialMetadata();
  ASSERT_EQ(metadata.count("x-request-id"), 1u);
  EXPECT_EQ(metadata.find("x-request-id")->second, "r-7");
}

TEST_F(OpenInferenceTest, PromptsOfOneTensorShareTheBatcher) {
  front_.worker().Hold();
  ModelInferResponse response;
  std::thread releaser([&] {
    front_.worker().AwaitSamples(3);
    front_.worker().Release(true);
  });
  const grpc::Status status = Infer(TextRequest({"ab", "cd", "ef"}, 4), &response);
  releaser.join();
  ASSERT_TRUE(status.ok()) << status.error_message();
  EXPECT_THAT(Texts(response, "text_output"), ElementsAre("abab", "cdcd", "efef"));
  EXPECT_THAT(MetricsText(),
              HasSubstr(R"(hanmo_requests_total{code="OK",model="poet",task="text"} 3)"));
}

TEST_F(OpenInferenceTest, APictureComesAsAFileAndAsPixels) {
  ModelInferResponse response;
  const grpc::Status status =
      Infer(PictureRequest("parameters { key: 'width' value { int64_param: 72 } } "
                           "parameters { key: 'steps' value { int64_param: 3 } } "
                           "outputs { name: 'image' } outputs { name: 'pixels' } "
                           "outputs { name: 'steps' }"),
            &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  hanmo::v1::GenerateResponse ours;
  ASSERT_TRUE(
      Generate(R"(model: "painter" prompt: "山" picture { width: 72 steps: 3 })", &ours).ok());
  EXPECT_THAT(Texts(response, "image"), ElementsAre(ours.outputs(0).picture().data()));
  EXPECT_THAT(response.outputs(1).shape(), ElementsAre(1, 64, 72, 3));
  EXPECT_EQ(*Tensor(response, "pixels"), testing::Noise(72, 64).rgb);
  EXPECT_EQ(*Tensor(response, "steps"), std::string("\3\0\0\0", 4));
}

TEST_F(OpenInferenceTest, PixelsAloneAreNotEncoded) {
  ModelInferResponse response;
  ASSERT_TRUE(Infer(PictureRequest("outputs { name: 'pixels' } "
                                   "parameters { key: 'count' value { int64_param: 2 } }"),
                    &response)
                  .ok());
  EXPECT_EQ(*Tensor(response, "pixels"), testing::Noise(64, 64).rgb + testing::Noise(64, 64).rgb);
  EXPECT_THAT(MetricsText(), HasSubstr("hanmo_picture_encode_seconds_count{model=\"painter\"} 0"));
}

TEST_F(OpenInferenceTest, TheBestPicturesComeFirst) {
  ModelInferResponse response;
  const grpc::Status status =
      Infer(PictureRequest("outputs { name: 'seed' } outputs { name: 'score' } "
                           "outputs { name: 'pixels' } "
                           "parameters { key: 'seed' value { int64_param: 3 } } "
                           "parameters { key: 'count' value { int64_param: 2 } } "
                           "parameters { key: 'best_of' value { int64_param: 8 } }"),
            &response);
  ASSERT_TRUE(status.ok()) << status.error_message();
  std::array<uint64_t, 2> seeds;
  std::array<float, 2> scores;
  ASSERT_EQ(Tensor(response, "seed")->size(), sizeof(seeds));
  ASSERT_EQ(Tensor(response, "score")->size(), sizeof(scores));
  std::memcpy(seeds.data(), Tensor(response, "seed")->data(), sizeof(seeds));
  std::memcpy(scores.data(), Tensor(response, "score")->data(), sizeof(scores));
  float best = 0;
  for (uint64_t seed = 3; seed < 11; ++seed) best = std::max(best, testing::ScoreOf(seed));
  EXPECT_EQ(scores[0], best);
  EXPECT_GT(scores[0], scores[1]);
  for (int i = 0; i < 2; ++i) EXPECT_EQ(scores[i], testing::ScoreOf(seeds[i]));
  EXPECT_EQ(Tensor(response, "pixels")->size(), 2 * testing::Noise(64, 64).rgb.size());
}

TEST_F(OpenInferenceTest, ErrorsNameTheTensorAndItsRange) {
  ModelInferResponse response;
  grpc::Status status = Infer(TextRequest({"a"}, 500), &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "max_tokens: must be in [1, 64], got 500");
  status = Infer(TextRequest({"a", std::string(90, 'b')}, 4), &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("text_input[1]: must be at most 63 tokens"));
  status = Infer(TextRequest({"", "a"}, 4), &response);
  EXPECT_EQ(status.error_message(), "text_input[0]: must not be empty");
  status = Infer(TextRequest({"a"}, 4, "parameters { key: 'n' value { int64_param: 4294967295 } }"),
                 &response);
  EXPECT_EQ(status.error_message(), "n: must be in [1, 16], got 4294967295");
  status = Infer(Request("model_name: 'painter'"), &response);
  EXPECT_EQ(status.error_message(), "prompt: is required");
  status = Infer(Request("model_name: 'nobody'"), &response);
  EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "model_name: there is no model named \"nobody\"");
  status = Infer(TextRequest({"a"}, 4, "model_version: '2'"), &response);
  EXPECT_EQ(status.error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(status.error_message(), "model_version: model \"poet\" has no version \"2\" loaded");
  ModelInferRequest broken = TextRequest({"a"}, 4);
  broken.set_model_version("\xff");
  status = Infer(broken, &response);
  EXPECT_EQ(status.error_code(), StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "model_version: must be valid UTF-8");
  EXPECT_THAT(MetricsText(), HasSubstr("hanmo_rejected_total{reason=\"invalid\"} 8"));
  EXPECT_TRUE(front_.calls().AwaitNone(absl::Seconds(30)));
}

TEST_F(OpenInferenceTest, CancellingEndsEverySample) {
  front_.worker().Hold();
  grpc::ClientContext context;
  std::thread canceller([&] {
    front_.worker().AwaitSamples(2);
    context.TryCancel();
  });
  ModelInferResponse response;
  EXPECT_EQ(inference_->ModelInfer(&context, TextRequest({"ab", "cd"}, 60), &response).error_code(),
            StatusCode::CANCELLED);
  canceller.join();
  front_.worker().Release(true);
  front_.worker().AwaitSamples(0);
}

TEST_F(OpenInferenceTest, TheTimeoutAndTheDeadlineEndARequest) {
  front_.worker().Hold();
  ModelInferResponse response;
  const grpc::Status status =
      Infer(TextRequest({"ab"}, 60, "parameters { key: 'timeout' value { int64_param: 50000 } }"),
            &response);
  EXPECT_EQ(status.error_code(), StatusCode::DEADLINE_EXCEEDED);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
  EXPECT_EQ(inference_->ModelInfer(&context, TextRequest({"ab"}, 60), &response).error_code(),
            StatusCode::DEADLINE_EXCEEDED);
  front_.worker().Release(true);
  front_.worker().AwaitSamples(0);
}

TEST_F(OpenInferenceTest, StatesAreThoseOfTheHealthService) {
  const auto model_ready = [this](const std::string& name, const std::string& version = "") {
    grpc::ClientContext context;
    inference::ModelReadyRequest request;
    inference::ModelReadyResponse response;
    request.set_name(name);
    request.set_version(version);
    EXPECT_TRUE(inference_->ModelReady(&context, request, &response).ok());
    return response.ready();
  };
  const auto server_ready = [this] {
    grpc::ClientContext context;
    inference::ServerReadyResponse response;
    EXPECT_TRUE(inference_->ServerReady(&context, {}, &response).ok());
    return response.ready();
  };
  grpc::ClientContext context;
  inference::ServerLiveResponse live;
  ASSERT_TRUE(inference_->ServerLive(&context, {}, &live).ok());
  EXPECT_TRUE(live.live());
  EXPECT_TRUE(server_ready());
  EXPECT_TRUE(model_ready("poet"));
  EXPECT_TRUE(model_ready("poet", "1"));
  EXPECT_FALSE(model_ready("poet", "2"));
  EXPECT_FALSE(model_ready("broken"));
  EXPECT_FALSE(model_ready("nobody"));
  EXPECT_FALSE(model_ready("hanmo.v1.Models"));
  front_.models().RemoveWorker(0);
  EXPECT_FALSE(server_ready());
  EXPECT_FALSE(model_ready("poet"));
}

TEST_F(OpenInferenceTest, ModelsAreDescribed) {
  grpc::ClientContext server_context;
  inference::ServerMetadataResponse server;
  ASSERT_TRUE(inference_->ServerMetadata(&server_context, {}, &server).ok());
  EXPECT_EQ(server.name(), "hanmo");
  EXPECT_EQ(server.version(), "test");
  grpc::ClientContext context;
  inference::ModelMetadataRequest request;
  inference::ModelMetadataResponse metadata;
  request.set_name("painter");
  ASSERT_TRUE(inference_->ModelMetadata(&context, request, &metadata).ok());
  EXPECT_EQ(metadata.inputs(0).name(), "prompt");
  EXPECT_THAT(metadata.inputs(0).shape(), ElementsAre(-1, 1));
  EXPECT_EQ(metadata.outputs(0).name(), "image");
  EXPECT_THAT(metadata.versions(), ElementsAre("1"));
  grpc::ClientContext config_context;
  inference::ModelConfigRequest config_request;
  inference::ModelConfigResponse config;
  config_request.set_name("poet");
  ASSERT_TRUE(inference_->ModelConfig(&config_context, config_request, &config).ok());
  EXPECT_EQ(config.config().max_batch_size(), 64);
  EXPECT_EQ(config.config().input(0).data_type(), inference::TYPE_STRING);
  EXPECT_THAT(config.config().input(0).dims(), ElementsAre(1));
  EXPECT_TRUE(config.config().model_transaction_policy().decoupled());
  grpc::ClientContext unknown_context;
  request.set_name("nobody");
  EXPECT_EQ(inference_->ModelMetadata(&unknown_context, request, &metadata).error_code(),
            StatusCode::NOT_FOUND);
}

TEST_F(OpenInferenceTest, StatisticsCountWhatHappened) {
  ModelInferResponse response;
  ASSERT_TRUE(Infer(TextRequest({"ab", "cd"}, 4), &response).ok());
  EXPECT_FALSE(Infer(TextRequest({"ab"}, 500), &response).ok());
  grpc::ClientContext context;
  inference::ModelStatisticsRequest request;
  inference::ModelStatisticsResponse statistics;
  request.set_name("poet");
  ASSERT_TRUE(inference_->ModelStatistics(&context, request, &statistics).ok());
  ASSERT_EQ(statistics.model_stats_size(), 1);
  const auto& poet = statistics.model_stats(0);
  EXPECT_EQ(poet.inference_count(), 2u);
  EXPECT_EQ(poet.inference_stats().success().count(), 2u);
  EXPECT_GT(poet.inference_stats().success().ns(), 0u);
  EXPECT_EQ(poet.inference_stats().fail().count(), 1u);
  EXPECT_EQ(poet.inference_stats().queue().count(), 2u);
  EXPECT_EQ(poet.execution_count(), poet.inference_stats().compute_infer().count());
  uint64_t steps = 0;
  for (const auto& batch : poet.batch_stats()) steps += batch.compute_infer().count();
  EXPECT_EQ(steps, poet.execution_count());
  EXPECT_GE(steps, 4u);
  EXPECT_GT(poet.last_inference(), 1'700'000'000'000u);
  grpc::ClientContext all_context;
  ASSERT_TRUE(inference_->ModelStatistics(&all_context, {}, &statistics).ok());
  EXPECT_EQ(statistics.model_stats_size(), 5);
}

TEST_F(OpenInferenceTest, TheRepositoryIsListed) {
  grpc::ClientContext context;
  inference::RepositoryIndexResponse index;
  ASSERT_TRUE(inference_->RepositoryIndex(&context, {}, &index).ok());
  ASSERT_EQ(index.models_size(), 5);
  std::map<std::string, inference::RepositoryIndexResponse::ModelIndex> models;
  for (const auto& model : index.models()) models[model.name()] = model;
  EXPECT_EQ(models["poet"].state(), "READY");
  EXPECT_EQ(models["poet"].version(), "1");
  EXPECT_EQ(models["broken"].state(), "UNAVAILABLE");
  EXPECT_EQ(models["broken"].reason(), "config.json lacks n_positions");
  grpc::ClientContext ready_context;
  inference::RepositoryIndexRequest request;
  request.set_ready(true);
  ASSERT_TRUE(inference_->RepositoryIndex(&ready_context, request, &index).ok());
  EXPECT_EQ(index.models_size(), 4);
}

// Writes down what it is told and answers on another thread.
class Control final : public RepositoryControl {
 public:
  ~Control() override {
    for (std::thread& thread : threads_) thread.join();
  }
  std::function<void()> Load(const std::string& name, Done done) override {
    if (name == "painter") {
      // Takes until it is cancelled.
      return [done = std::move(done)] { done(absl::CancelledError("the load was cancelled")); };
    }
    Answer("load " + name, std::move(done));
    return nullptr;
  }
  void Unload(const std::string& name, Done done) override {
    Answer("unload " + name, std::move(done));
  }
  std::vector<std::string> told;

 private:
  void Answer(const std::string& what, Done done) {
    told.push_back(what);
    threads_.emplace_back([what, done = std::move(done)] {
      done(what == "load poet" ? absl::OkStatus() : absl::NotFoundError(what));
    });
  }
  std::vector<std::thread> threads_;
};

TEST_F(OpenInferenceTest, LoadingIsLeftToWhoCanDoIt) {
  const auto load = [this](const std::string& text) {
    grpc::ClientContext context;
    inference::RepositoryModelLoadRequest request;
    inference::RepositoryModelLoadResponse response;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request));
    return inference_->RepositoryModelLoad(&context, request, &response);
  };
  const auto unload = [this](const std::string& text) {
    grpc::ClientContext context;
    inference::RepositoryModelUnloadRequest request;
    inference::RepositoryModelUnloadResponse response;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request));
    return inference_->RepositoryModelUnload(&context, request, &response);
  };
  EXPECT_EQ(load("model_name: 'poet'").error_code(), StatusCode::UNIMPLEMENTED);
  EXPECT_EQ(unload("model_name: 'poet'").error_code(), StatusCode::UNIMPLEMENTED);

  Control control;
  front_.SetRepositoryControl(&control);
  EXPECT_TRUE(load("model_name: 'poet'").ok());
  EXPECT_EQ(unload("model_name: 'poet' parameters { key: 'unload_dependents' value { bool_param: "
                   "false } }")
                .error_message(),
            "unload poet");
  EXPECT_THAT(control.told, ElementsAre("load poet", "unload poet"));
  {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(50));
    inference::RepositoryModelLoadRequest request;
    request.set_model_name("painter");
    inference::RepositoryModelLoadResponse response;
    EXPECT_EQ(inference_->RepositoryModelLoad(&context, request, &response).error_code(),
              StatusCode::DEADLINE_EXCEEDED);
  }
  EXPECT_EQ(load("model_name: '../poet'").error_code(), StatusCode::NOT_FOUND);
  EXPECT_EQ(load("model_name: 'poet' parameters { key: 'config' value { string_param: '{}' } }")
                .error_code(),
            StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(load("model_name: 'poet' repository_name: 'r'").error_code(),
            StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(control.told.size(), 2u);
}

}  // namespace
}  // namespace hanmo
