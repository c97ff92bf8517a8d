// Models that come, rest and go: the control, the batcher and the fleet as they are, over a real
// stream to a worker in this process that does what the test lets it.
#include "server/model_control.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "hanmo/worker/v1/worker.grpc.pb.h"
#include "server/batcher/batcher_loop.h"
#include "server/batcher/clock.h"
#include "server/batcher/testing/ignoring_sink.h"
#include "server/worker_link/wire.h"

namespace hanmo {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kPatience = absl::Seconds(60);

// Loads and unloads at once, unless it is held; never answers a step.
class HeldWorker final : public wire::Worker::Service {
 public:
  using Stream = grpc::ServerReaderWriter<wire::RunResponse, wire::RunRequest>;

  grpc::Status Run(grpc::ServerContext*, Stream* stream) override {
    wire::RunRequest request;
    while (stream->Read(&request)) {
      wire::RunResponse response;
      switch (request.command_case()) {
        case wire::RunRequest::kHello: {
          WorkerHello hello;
          hello.device = "cpu";
          ToWire(hello, response.mutable_hello());
          break;
        }
        case wire::RunRequest::kLoad: {
          Note(absl::StrCat("load ", request.load().model()));
          LoadedModel loaded;
          loaded.weight_bytes = fs::file_size(request.load().path() + "/model.safetensors");
          loaded.context_tokens = 64;
          loaded.page_tokens = 16;
          loaded.pages = 64;
          ToWire(request.load().model(), loaded, response.mutable_loaded());
          break;
        }
        case wire::RunRequest::kUnload:
          Note(absl::StrCat("unload ", request.unload().model()));
          AwaitRelease();
          response.mutable_unloaded()->set_model(request.unload().model());
          break;
        case wire::RunRequest::kBegin:
          Note(absl::StrCat("begin ", request.begin().model()));
          continue;
        default:
          continue;
      }
      stream->Write(response);
    }
    return grpc::Status::OK;
  }

  // From now on unloading waits for Release.
  void Hold() {
    absl::MutexLock lock(&mu_);
    held_ = true;
  }
  void Release() {
    absl::MutexLock lock(&mu_);
    held_ = false;
  }
  // Waits until the worker has been told to do `what`, and forgets that it was.
  void Await(const std::string& what) {
    absl::MutexLock lock(&mu_);
    const auto told = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return std::find(log_.begin(), log_.end(), what) != log_.end();
    };
    ASSERT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&told), kPatience))
        << what << " after " << ::testing::PrintToString(log_);
    log_.erase(std::find(log_.begin(), log_.end(), what));
  }

 private:
  void Note(std::string what) {
    absl::MutexLock lock(&mu_);
    log_.push_back(std::move(what));
  }
  void AwaitRelease() {
    absl::MutexLock lock(&mu_);
    const auto released = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return !held_; };
    mu_.Await(absl::Condition(&released));
  }

  absl::Mutex mu_;
  std::vector<std::string> log_ ABSL_GUARDED_BY(mu_);
  bool held_ ABSL_GUARDED_BY(mu_) = false;
};

// A server's models without its ports: what Server::FleetEvents carries is carried here.
class ModelControlTest : public ::testing::Test, public FleetObserver {
 protected:
  // Ids in the order of the names, as ServeRepository gives them.
  static constexpr ModelId kFirst = 0, kBusy = 1;
  static constexpr char kConfig[] =
      R"({"model_type": "gpt2", "n_positions": 64, "vocab_size": 256, "eos_token_id": 0})";

  ModelControlTest()
      : root_(fs::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(root_);
    fs::create_directories(root_);
    grpc::ServerBuilder builder;
    builder.AddListeningPort(address(), grpc::InsecureServerCredentials());
    builder.RegisterService(&worker_);
    port_ = builder.BuildAndStart();
  }
  ~ModelControlTest() override {
    worker_.Release();
    if (control_ != nullptr) control_->Stop();
    fleet_.reset();
    port_->Shutdown();
  }

  void Write(const std::string& name, size_t bytes, const char* config = kConfig) {
    fs::create_directories(root_ / "models" / name);
    std::ofstream(root_ / "models" / name / "config.json") << config;
    std::ofstream(root_ / "models" / name / "model.safetensors") << std::string(bytes, '\0');
  }

  absl::StatusOr<std::vector<FleetModel>> Serve(uint64_t memory,
                                                const std::vector<std::string>& load,
                                                const std::vector<VersionLabel>& labels = {}) {
    control_ =
        std::make_unique<ModelControl>(ModelControl::Options{(root_ / "models").string(), memory},
                                       &models_, &loop_.batcher(), &figures_, &log_);
    return control_->ServeRepository(load, labels);
  }

  // With everything in `load` in the worker.
  void Start(uint64_t memory, const std::vector<std::string>& load) {
    auto served = Serve(memory, load);
    ASSERT_TRUE(served.ok()) << served.status();
    models_.Watch([this] { control_->ModelChanged(); });
    FleetOptions options;
    options.attach = {address()};
    fleet_ = std::make_unique<Fleet>(options, *served, &loop_.batcher(), this);
    ASSERT_TRUE(fleet_->Start().ok());
    control_->Start(fleet_.get());
    for (const FleetModel& model : *served) AwaitReady(model.id);
  }

  void Submit(ModelId model) {
    Request request;
    request.model = model;
    request.arrival = SteadyNow();
    TextJob text;
    text.prompt = {1, 2};
    text.max_tokens = 4;
    request.samples.emplace_back(text);
    loop_.batcher().Submit(std::move(request), std::make_shared<testing::IgnoringSink>());
  }

  // The batcher has handled what came before.
  void AwaitBatcher() {
    absl::Notification handled;
    loop_.batcher().RemoveModel(kNobody, [&] { handled.Notify(); });
    handled.WaitForNotification();
  }

  void AwaitReady(ModelId model) {
    absl::MutexLock lock(&mu_);
    const auto is_ready = [&]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
      return std::find(ready_.begin(), ready_.end(), model) != ready_.end();
    };
    ASSERT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&is_ready), kPatience)) << "model " << model;
    std::erase(ready_, model);
  }

  absl::Status Load(const std::string& name) {
    absl::Notification ended;
    absl::Status status;
    control_->Load(name, 0, [&](const auto& loaded) {
      status = loaded.status();
      ended.Notify();
    });
    ended.WaitForNotification();
    return status;
  }

  // The control has done what was asked of it before.
  void AwaitControl() { EXPECT_TRUE(absl::IsNotFound(Load("nobody"))); }

  void OnModelLoaded(WorkerId worker, ModelId model, const LoadedModel& loaded) override {
    models_.SetLoaded(worker, model, loaded);
    control_->ModelLoaded();
    absl::MutexLock lock(&mu_);
    ready_.push_back(model);
  }
  void OnModelFailed(WorkerId worker, ModelId model, const absl::Status& status) override {
    models_.SetFailed(worker, model, status);
  }
  void OnModelUnloaded(WorkerId worker, ModelId model) override {
    control_->ModelUnloaded(worker, model);
  }
  void OnWorkerUp(WorkerId worker, const std::string&, uint64_t) override {
    control_->WorkerUp(worker);
  }
  void OnWorkerLost(WorkerId worker, const std::string&) override { control_->WorkerLost(worker); }

  HeldWorker worker_;
  ModelTable models_;
  std::unique_ptr<ModelControl> control_;

 private:
  static constexpr ModelId kNobody = 1000;

  std::string address() const { return absl::StrCat("unix:", (root_ / "worker").string()); }

  const fs::path root_;
  std::unique_ptr<grpc::Server> port_;
  Log log_{LogLevel::kError, LogFormat::kText};
  Figures figures_;
  BatcherLoop loop_{{}, &figures_};
  std::unique_ptr<Fleet> fleet_;
  absl::Mutex mu_;
  std::vector<ModelId> ready_ ABSL_GUARDED_BY(mu_);
};

TEST_F(ModelControlTest, AModelThatIsWantedWhileItGoesToRestComesBack) {
  Write("first", 8000);
  Write("second", 2000);  // will have a request, so that it stays
  Write("third", 9000);
  Start(10000, {"first", "second"});
  models_.Find("second");  // "first" is the one that nobody has asked for the longest
  Submit(kBusy);
  worker_.Await(absl::StrCat("begin ", kBusy));

  // There is no room for the third model even without the first one, which is to rest all the same.
  worker_.Hold();
  absl::Status third;
  absl::Notification refused;
  control_->Load("third", 0, [&](const auto& loaded) {
    third = loaded.status();
    refused.Notify();
  });
  worker_.Await(absl::StrCat("unload ", kFirst));
  // It has left the batcher, but the worker is not done with it.
  Submit(kFirst);
  AwaitBatcher();
  worker_.Release();
  refused.WaitForNotification();
  EXPECT_TRUE(absl::IsResourceExhausted(third)) << third;

  worker_.Await(absl::StrCat("begin ", kFirst));
  AwaitReady(kFirst);
  AwaitControl();
  EXPECT_EQ(models_.phase(kFirst), ModelPhase::kReady);
  EXPECT_NE(models_.Find("first"), nullptr);
}

TEST_F(ModelControlTest, AModelThatNobodyHoldsIsForgotten) {
  Write("first", 8000);
  Start(0, {"first"});
  worker_.Await(absl::StrCat("load ", kFirst));
  absl::Notification gone;
  control_->Unload("first", 0, [&](const auto& versions) {
    EXPECT_TRUE(versions.ok()) << versions.status();
    gone.Notify();
  });
  gone.WaitForNotification();
  worker_.Await(absl::StrCat("unload ", kFirst));
  EXPECT_EQ(models_.phase(kFirst), ModelPhase::kUnloaded);
}

TEST_F(ModelControlTest, LabelledVersionsAreServedFromTheStart) {
  Write("poet/1", 100);
  Write("poet/2", 100);
  Write("poet/3", 100);
  const auto served = Serve(0, {"*", "poet:3"},
                            {{"poet", "stable", 1}, {"poet", "canary", 3}, {"poet", "next", 3}});
  ASSERT_TRUE(served.ok()) << served.status();
  EXPECT_EQ(served->size(), 2u);
  // Before it is ready nobody gets another version in its place.
  EXPECT_EQ(models_.Find("poet")->spec.version, 1u);
  EXPECT_EQ(models_.Find("poet", "stable")->spec.version, 1u);
  EXPECT_EQ(models_.Find("poet", "canary")->spec.version, 3u);
  EXPECT_EQ(models_.Find("poet", "next")->spec.version, 3u);
  EXPECT_EQ(models_.Find("poet", "2"), nullptr);
  EXPECT_TRUE(absl::IsFailedPrecondition(models_.Withdraw("poet", 1)));
}

TEST_F(ModelControlTest, LabelledVersionsAreTheFirstInMemory) {
  Write("poet/1", 8000);
  Write("poet/2", 8000);
  const auto served = Serve(10000, {"*"}, {{"poet", "stable", 1}});
  ASSERT_TRUE(served.ok()) << served.status();
  ASSERT_EQ(served->size(), 1u);
  EXPECT_EQ((*served)[0].id, models_.Find("poet")->spec.id);
  EXPECT_EQ(models_.Find("poet")->spec.version, 1u);
  EXPECT_EQ(models_.phase(models_.Find("poet", "2")->spec.id), ModelPhase::kIdle);
}

TEST_F(ModelControlTest, NobodyGetsAnotherVersionThanALabelledOneThatFailed) {
  Write("poet/1", 100, "{");
  Write("poet/2", 100);
  const auto served = Serve(0, {"*"}, {{"poet", "stable", 1}});
  ASSERT_TRUE(served.ok()) << served.status();
  EXPECT_EQ(served->size(), 1u);
  EXPECT_EQ(models_.Find("poet")->spec.version, 1u);
  EXPECT_EQ(models_.phase(models_.Find("poet")->spec.id), ModelPhase::kFailed);
  EXPECT_EQ(models_.Find("poet", "2")->spec.version, 2u);
}

TEST_F(ModelControlTest, WhatTheRepositoryDoesNotHaveIsNamedAtTheStart) {
  Write("poet/2", 100);
  EXPECT_EQ(Serve(0, {"poet:1"}).status().message(),
            "--load: version: the repository has no version 1 of poet; it has 2");
  EXPECT_EQ(Serve(0, {"nobody:1"}).status().message(),
            "--load: the repository has no model \"nobody\"");
  EXPECT_EQ(Serve(0, {"*"}, {{"poet", "stable", 1}}).status().message(),
            "--label: version: the repository has no version 1 of poet; it has 2");
  EXPECT_EQ(Serve(0, {"*"}, {{"nobody", "stable", 1}}).status().message(),
            "--label: the repository has no model \"nobody\"");
}

}  // namespace
}  // namespace hanmo
