// The worker's end of the stream, in process, over a socket pair.
#include "workers/service.h"

#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/server_posix.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <memory>

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
  EXPECT_EQ(status.error_message(), "protocol version 99, this worker has 1");
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
