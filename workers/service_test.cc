// The worker's end of the stream, in process, over a socket pair.
#include "workers/service.h"

#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/server_posix.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "workers/testing/scripted_executor.h"

namespace hanmo {
namespace {

class ServiceTest : public ::testing::Test {
 protected:
  ServiceTest() : service_(&executor_, [] {}, [this] { ++streams_ended_; }) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = Connect();
  }
  ~ServiceTest() override { server_->Shutdown(); }

  std::unique_ptr<wire::Worker::Stub> Connect() {
    int sockets[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, sockets), 0);
    grpc::AddInsecureChannelFromFd(server_.get(), sockets[0]);
    return wire::Worker::NewStub(grpc::CreateInsecureChannelFromFd("test", sockets[1]));
  }

  using Stream = grpc::ClientReaderWriter<wire::RunRequest, wire::RunResponse>;

  static wire::RunRequest Hello(uint32_t version) {
    wire::RunRequest request;
    request.mutable_hello()->set_protocol_version(version);
    return request;
  }
  static wire::RunRequest Begin(uint64_t sample) {
    wire::RunRequest request;
    request.mutable_begin()->set_sample(sample);
    request.mutable_begin()->mutable_picture()->set_steps(2);
    return request;
  }
  static wire::RunRequest Denoise(uint64_t step, uint64_t sample) {
    wire::RunRequest request;
    request.mutable_step()->set_step(step);
    request.mutable_step()->set_kind(wire::STEP_KIND_DENOISE);
    request.mutable_step()->add_rows()->set_sample(sample);
    return request;
  }

  static wire::RunRequest Sliced(wire::RunRequest step) {
    step.mutable_step()->set_budget_us(1);  // suspended at each of its 3 yield points
    return step;
  }
  static wire::RunRequest Resume(uint64_t step, uint32_t budget_us = 1) {
    wire::RunRequest request;
    request.mutable_resume()->set_step(step);
    request.mutable_resume()->set_budget_us(budget_us);
    return request;
  }
  static wire::RunRequest BeginText(uint64_t sample) {
    wire::RunRequest request;
    request.mutable_begin()->set_sample(sample);
    request.mutable_begin()->mutable_text()->add_prompt(50);
    request.mutable_begin()->mutable_text()->set_max_tokens(100);
    return request;
  }
  static wire::RunRequest Write(uint64_t step, uint64_t sample) {
    wire::RunRequest request = Denoise(step, sample);
    request.mutable_step()->set_kind(wire::STEP_KIND_TEXT);
    return request;
  }
  static wire::RunRequest Save(uint64_t sample) {
    wire::RunRequest request;
    request.mutable_save()->add_samples(sample);
    return request;
  }
  static wire::RunRequest Drop(uint64_t sample) {
    wire::RunRequest request;
    request.mutable_drop()->add_samples(sample);
    return request;
  }

  static wire::RunRequest Load(uint32_t model, const std::string& path) {
    wire::RunRequest request;
    request.mutable_load()->set_model(model);
    request.mutable_load()->set_path(path);
    return request;
  }
  static wire::RunRequest Unload(uint32_t model) {
    wire::RunRequest request;
    request.mutable_unload()->set_model(model);
    return request;
  }

  // A stream with the pictures 1 and 2 and the text 9 begun.
  std::unique_ptr<Stream> Open(grpc::ClientContext* context) {
    std::unique_ptr<Stream> stream = stub_->Run(context);
    stream->Write(Hello(kWorkerProtocolVersion));
    for (uint64_t picture : {1, 2}) stream->Write(Begin(picture));
    stream->Write(BeginText(9));
    wire::RunResponse hello;
    EXPECT_TRUE(stream->Read(&hello));
    return stream;
  }
  static wire::StepDone ReadStep(Stream& stream) {
    wire::RunResponse response;
    EXPECT_TRUE(stream.Read(&response));
    EXPECT_TRUE(response.has_step_done());
    return response.step_done();
  }

  testing::ScriptedExecutor executor_{"cpu"};
  std::atomic<int> streams_ended_ = 0;
  WorkerService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<wire::Worker::Stub> stub_;
};

TEST_F(ServiceTest, AnswersHelloWithDeviceAndProcess) {
  grpc::ClientContext context;
  auto stream = stub_->Run(&context);
  stream->Write(Hello(kWorkerProtocolVersion));
  wire::RunResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.hello().device(), "cpu");
  EXPECT_EQ(response.hello().pid(), static_cast<uint32_t>(getpid()));
  EXPECT_EQ(response.hello().protocol_version(), kWorkerProtocolVersion);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
}

TEST_F(ServiceTest, RefusesAnotherProtocolVersionAndNamesBoth) {
  grpc::ClientContext context;
  auto stream = stub_->Run(&context);
  stream->Write(Hello(99));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(status.error_message(),
            absl::StrCat("protocol version 99, this worker has ", kWorkerProtocolVersion));
}

TEST_F(ServiceTest, RefusesCommandsBeforeHello) {
  grpc::ClientContext context;
  auto stream = stub_->Run(&context);
  stream->Write(Begin(1));
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::FAILED_PRECONDITION);
}

TEST_F(ServiceTest, RunsCommandsInOrderWithManyStepsUnderWay) {
  grpc::ClientContext context;
  auto stream = stub_->Run(&context);
  stream->Write(Hello(kWorkerProtocolVersion));
  stream->Write(Begin(1));
  constexpr uint64_t kSteps = 3 * WorkerService::kMaxQueuedCommands;
  for (uint64_t step = 1; step <= kSteps; ++step) stream->Write(Denoise(step, 1));
  wire::RunResponse response;
  ASSERT_TRUE(stream->Read(&response));
  for (uint64_t step = 1; step <= kSteps; ++step) {
    ASSERT_TRUE(stream->Read(&response));
    ASSERT_EQ(response.step_done().step(), step);
    ASSERT_EQ(response.step_done().rows(0).steps_done(), step);
  }
  context.TryCancel();
}

TEST_F(ServiceTest, ReportsAnUnknownKindOfStepWithoutEndingTheStream) {
  grpc::ClientContext context;
  auto stream = stub_->Run(&context);
  stream->Write(Hello(kWorkerProtocolVersion));
  wire::RunRequest request = Denoise(1, 1);
  request.mutable_step()->set_kind(static_cast<wire::StepKind>(77));
  stream->Write(request);
  stream->Write(wire::RunRequest());  // an empty command is ignored
  stream->Write(Denoise(2, 1));
  wire::RunResponse response;
  ASSERT_TRUE(stream->Read(&response));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.step_done().status().code(), grpc::StatusCode::INVALID_ARGUMENT);
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.step_done().step(), 2u);
  context.TryCancel();
}

TEST_F(ServiceTest, SuspendsAStepWhenItsBudgetHasPassedAndRunsTextsMeanwhile) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Sliced(Denoise(1, 1)));
  for (uint64_t step : {2, 3, 4, 5}) {
    stream->Write(Write(step, 9));
    stream->Write(Resume(1));
  }
  // The last Resume comes too late, as the server can't know yet.
  for (uint64_t slice = 0; slice < 3; ++slice) {
    const wire::StepDone suspended = ReadStep(*stream);
    EXPECT_EQ(suspended.step(), 1u);
    EXPECT_TRUE(suspended.suspended());
    EXPECT_FALSE(suspended.already_done());
    EXPECT_EQ(suspended.rows_size(), 0);
    EXPECT_GT(suspended.device_seconds(), 0);
    EXPECT_GT(suspended.memory_used_bytes(), 0u);
    const wire::StepDone text = ReadStep(*stream);
    EXPECT_EQ(text.step(), 2 + slice);
    EXPECT_EQ(text.rows(0).tokens(0).id(), 50 + slice);
  }
  const wire::StepDone last = ReadStep(*stream);
  EXPECT_EQ(last.step(), 1u);
  EXPECT_FALSE(last.suspended());
  EXPECT_EQ(last.rows(0).steps_done(), 1u);
  EXPECT_EQ(ReadStep(*stream).step(), 5u);
  const wire::StepDone late = ReadStep(*stream);
  EXPECT_EQ(late.step(), 1u);
  EXPECT_TRUE(late.already_done());
  EXPECT_FALSE(late.suspended());
  EXPECT_EQ(late.status().code(), 0);
  EXPECT_EQ(late.rows_size(), 0);
  EXPECT_EQ(late.device_seconds(), 0);
  context.TryCancel();
}

TEST_F(ServiceTest, AResumeWithoutABudgetRunsTheStepToItsEnd) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Sliced(Denoise(1, 1)));
  stream->Write(Resume(1, 0));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  const wire::StepDone done = ReadStep(*stream);
  EXPECT_FALSE(done.suspended());
  EXPECT_EQ(done.rows(0).steps_done(), 1u);
  stream->Write(Resume(77));
  const wire::StepDone unknown = ReadStep(*stream);
  EXPECT_EQ(unknown.step(), 77u);
  EXPECT_TRUE(unknown.already_done());
  context.TryCancel();
}

TEST_F(ServiceTest, RefusesPictureStepsWhileOneIsSuspendedAndBudgetsOfTexts) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Sliced(Denoise(1, 1)));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  for (const wire::RunRequest& refused : {Denoise(2, 2), Sliced(Denoise(2, 2))}) {
    stream->Write(refused);
    const wire::StepDone done = ReadStep(*stream);
    EXPECT_EQ(done.step(), 2u);
    EXPECT_EQ(done.status().code(), grpc::StatusCode::FAILED_PRECONDITION);
    EXPECT_EQ(done.status().message(), "step 2: step 1 is suspended");
    EXPECT_EQ(done.rows_size(), 0);
  }
  stream->Write(Sliced(Write(3, 9)));
  EXPECT_EQ(ReadStep(*stream).status().code(), grpc::StatusCode::INVALID_ARGUMENT);
  stream->Write(Resume(1, 0));
  EXPECT_EQ(ReadStep(*stream).rows(0).steps_done(), 1u);
  stream->Write(Denoise(4, 2));
  EXPECT_EQ(ReadStep(*stream).rows(0).steps_done(), 1u);
  context.TryCancel();
}

TEST_F(ServiceTest, SavesASuspendedSampleAsItWasBeforeTheStep) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Denoise(1, 1));
  stream->Write(Sliced(Denoise(2, 1)));
  stream->Write(Save(1));
  stream->Write(Resume(2, 0));
  stream->Write(Save(1));
  EXPECT_EQ(ReadStep(*stream).rows(0).steps_done(), 1u);
  EXPECT_TRUE(ReadStep(*stream).suspended());
  wire::RunResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.saved().steps_done(), 1u);
  EXPECT_EQ(ReadStep(*stream).rows(0).steps_done(), 2u);
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.saved().steps_done(), 2u);
  context.TryCancel();
}

TEST_F(ServiceTest, AStepGoesOnWithoutADroppedSampleAndIsAbandonedWithoutAny) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  wire::RunRequest both = Sliced(Denoise(1, 1));
  both.mutable_step()->add_rows()->set_sample(2);
  stream->Write(both);
  stream->Write(Drop(1));
  stream->Write(Resume(1));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  EXPECT_TRUE(ReadStep(*stream).suspended());
  stream->Write(Drop(2));
  stream->Write(Resume(1));
  EXPECT_TRUE(ReadStep(*stream).already_done());

  // The worker takes picture steps again, and a step of which one sample is left is finished.
  for (uint64_t picture : {3, 4}) stream->Write(Begin(picture));
  both = Sliced(Denoise(2, 3));
  both.mutable_step()->add_rows()->set_sample(4);
  stream->Write(both);
  stream->Write(Drop(3));
  stream->Write(Resume(2, 0));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  const wire::StepDone done = ReadStep(*stream);
  ASSERT_EQ(done.rows_size(), 2);
  EXPECT_EQ(done.rows(0).sample(), 3u);
  EXPECT_EQ(done.rows(0).status().code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(done.rows(1).sample(), 4u);
  EXPECT_EQ(done.rows(1).steps_done(), 1u);
  context.TryCancel();
}

TEST_F(ServiceTest, AStepIsAbandonedWhenItsModelIsUnloadedNotForAnother) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Sliced(Denoise(1, 1)));
  stream->Write(Unload(7));
  stream->Write(Resume(1));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  wire::RunResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.unloaded().model(), 7u);
  EXPECT_TRUE(ReadStep(*stream).suspended());
  stream->Write(Unload(0));
  stream->Write(Resume(1));
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.unloaded().model(), 0u);
  EXPECT_TRUE(ReadStep(*stream).already_done());
  context.TryCancel();
}

TEST_F(ServiceTest, EndsWithASuspendedStepAndServesTheNextServer) {
  for (int server = 0; server < 2; ++server) {
    grpc::ClientContext context;
    auto stream = Open(&context);
    stream->Write(Sliced(Denoise(1, 1)));
    EXPECT_TRUE(ReadStep(*stream).suspended());
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
    EXPECT_EQ(streams_ended_, server + 1);
  }
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Sliced(Denoise(1, 1)));
  EXPECT_TRUE(ReadStep(*stream).suspended());
  context.TryCancel();  // and then the worker is destroyed
}

TEST_F(ServiceTest, StepsGoOnWhileAModelIsRead) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Load(7, "held text"));
  executor_.AwaitReading();
  stream->Write(Load(8, "text"));
  for (uint64_t step : {1, 2}) stream->Write(Write(step, 9));
  wire::RunResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.loaded().model(), 8u) << "nothing of it had to be read";
  for (uint64_t step : {1, 2}) EXPECT_EQ(ReadStep(*stream).step(), step);

  executor_.ReleaseReading();
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.loaded().model(), 7u);
  EXPECT_EQ(response.loaded().status().code(), grpc::StatusCode::OK);
  context.TryCancel();
}

TEST_F(ServiceTest, AModelThatIsUnloadedWhileItIsReadIsGoneWhenItHasBeenRead) {
  grpc::ClientContext context;
  auto stream = Open(&context);
  stream->Write(Load(7, "held text"));
  executor_.AwaitReading();
  stream->Write(Unload(7));
  stream->Write(Write(1, 9));
  EXPECT_EQ(ReadStep(*stream).step(), 1u);
  executor_.ReleaseReading();
  wire::RunResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.loaded().status().code(), grpc::StatusCode::CANCELLED);
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.unloaded().model(), 7u);
  context.TryCancel();
}

TEST_F(ServiceTest, TheNextServerDoesNotHearOfWhatWasBeingRead) {
  {
    grpc::ClientContext context;
    auto stream = Open(&context);
    stream->Write(Load(7, "held text"));
    executor_.AwaitReading();
    stream->WritesDone();
    EXPECT_TRUE(stream->Finish().ok());
  }
  grpc::ClientContext context;
  auto stream = Open(&context);
  executor_.ReleaseReading();
  // The first thing that is read for this server comes after what was read for the other one.
  stream->Write(Load(8, "held text"));
  wire::RunResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.loaded().model(), 8u);
  context.TryCancel();
}

TEST_F(ServiceTest, ServesOneServerAtATime) {
  grpc::ClientContext first_context;
  auto first = stub_->Run(&first_context);
  first->Write(Hello(kWorkerProtocolVersion));
  wire::RunResponse response;
  ASSERT_TRUE(first->Read(&response));
  auto other = Connect();
  grpc::ClientContext second_context;
  auto second = other->Run(&second_context);
  EXPECT_EQ(second->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  first->WritesDone();
  EXPECT_TRUE(first->Finish().ok());
  EXPECT_EQ(streams_ended_, 1);
}

}  // namespace
}  // namespace hanmo
