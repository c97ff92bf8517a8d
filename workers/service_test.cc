// The worker's end of the stream, in process, over a socket pair.
#include "workers/service.h"

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "workers/testing/service_fixture.h"

namespace hanmo {
namespace {

class ServiceTest : public testing::ServiceFixture {};

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
