// A client of the whole front end, over a real socket.
#ifndef HANMO_SERVER_RPC_TESTING_RPC_FIXTURE_H_
#define HANMO_SERVER_RPC_TESTING_RPC_FIXTURE_H_

#include <memory>
#include <string>

#include "google/protobuf/text_format.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/channel_arguments.h"
#include "gtest/gtest.h"
#include "hanmo/v1/generation.grpc.pb.h"
#include "hanmo/v1/models.grpc.pb.h"
#include "server/rpc/testing/front_end.h"

namespace hanmo::testing {

// From text format.
inline hanmo::v1::GenerateRequest Proto(const std::string& text) {
  hanmo::v1::GenerateRequest proto;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &proto)) << text;
  return proto;
}

class RpcFixture : public ::testing::Test {
 protected:
  RpcFixture()
      : channel_(grpc::CreateCustomChannel(front_.server().address(),
                                           grpc::InsecureChannelCredentials(), AnySize())),
        generation_(hanmo::v1::Generation::NewStub(channel_)),
        models_(hanmo::v1::Models::NewStub(channel_)),
        health_(grpc::health::v1::Health::NewStub(channel_)) {}

  static grpc::ChannelArguments AnySize() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    return arguments;
  }

  grpc::Status Generate(const std::string& request, hanmo::v1::GenerateResponse* response) {
    grpc::ClientContext context;
    return generation_->Generate(&context, Proto(request), response);
  }

  grpc::health::v1::HealthCheckResponse::ServingStatus Health(const std::string& service) {
    grpc::ClientContext context;
    grpc::health::v1::HealthCheckRequest request;
    grpc::health::v1::HealthCheckResponse response;
    request.set_service(service);
    const grpc::Status status = health_->Check(&context, request, &response);
    return status.error_code() == grpc::StatusCode::NOT_FOUND
               ? grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN
               : response.status();
  }

  FrontEnd front_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<hanmo::v1::Generation::Stub> generation_;
  std::unique_ptr<hanmo::v1::Models::Stub> models_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_RPC_TESTING_RPC_FIXTURE_H_
