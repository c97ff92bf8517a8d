// The worker's end of the stream with a scripted executor, in process, over a socket pair.
#ifndef HANMO_WORKERS_TESTING_SERVICE_FIXTURE_H_
#define HANMO_WORKERS_TESTING_SERVICE_FIXTURE_H_

#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/server_posix.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <atomic>
#include <memory>
#include <string>

#include "workers/service.h"
#include "workers/testing/scripted_executor.h"

namespace hanmo::testing {

class ServiceFixture : public ::testing::Test {
 protected:
  ServiceFixture() : service_(&executor_, [] {}, [this] { ++streams_ended_; }) {
    grpc::ServerBuilder builder;
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    stub_ = Connect();
  }
  ~ServiceFixture() override { server_->Shutdown(); }

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

  ScriptedExecutor executor_{"cpu"};
  std::atomic<int> streams_ended_ = 0;
  WorkerService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<wire::Worker::Stub> stub_;
};

}  // namespace hanmo::testing

#endif  // HANMO_WORKERS_TESTING_SERVICE_FIXTURE_H_
