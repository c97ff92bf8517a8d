#include "client/testing/fake_server.h"

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server_builder.h"

namespace hanmo::testing {

using grpc::Status;
using grpc::StatusCode;

FakeServer::FakeServer() {
  grpc::ServerBuilder builder;
  int port = 0;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(static_cast<hanmo::v1::Generation::Service*>(this));
  builder.RegisterService(static_cast<hanmo::v1::Models::Service*>(this));
  builder.RegisterService(static_cast<grpc::health::v1::Health::Service*>(this));
  server_ = builder.BuildAndStart();
  address_ = absl::StrCat("127.0.0.1:", port);
}

FakeServer::~FakeServer() { server_->Shutdown(); }

hanmo::v1::GenerateRequest FakeServer::request() const {
  absl::MutexLock lock(&mu_);
  return request_;
}

int FakeServer::calls() const {
  absl::MutexLock lock(&mu_);
  return calls_;
}

Status FakeServer::Generate(grpc::ServerContext*, const hanmo::v1::GenerateRequest* request,
                            hanmo::v1::GenerateResponse* response) {
  {
    absl::MutexLock lock(&mu_);
    request_ = *request;
    ++calls_;
  }
  for (const auto& event : events) {
    if (event.has_final()) *response = event.final();
  }
  return status;
}

Status FakeServer::GenerateStream(grpc::ServerContext* context,
                                  const hanmo::v1::GenerateRequest* request,
                                  grpc::ServerWriter<hanmo::v1::GenerateStreamResponse>* writer) {
  {
    absl::MutexLock lock(&mu_);
    request_ = *request;
    ++calls_;
  }
  for (const auto& event : events) writer->Write(event);
  if (!hang) return status;
  hanging.Notify();
  // gRPC's synchronous server tells of a cancellation only when asked.
  while (!context->IsCancelled()) absl::SleepFor(absl::Milliseconds(1));
  cancelled.Notify();
  return Status(StatusCode::CANCELLED, "cancelled");
}

Status FakeServer::Tokenize(grpc::ServerContext*, const hanmo::v1::TokenizeRequest* request,
                            hanmo::v1::TokenizeResponse* response) {
  // A token a byte.
  for (const char c : request->text()) {
    response->add_ids(static_cast<unsigned char>(c));
    response->add_tokens(std::string(1, c));
  }
  return status;
}

Status FakeServer::Detokenize(grpc::ServerContext*, const hanmo::v1::DetokenizeRequest* request,
                              hanmo::v1::DetokenizeResponse* response) {
  for (const uint32_t id : request->ids())
    response->mutable_text()->push_back(static_cast<char>(id));
  return status;
}

Status FakeServer::ListModels(grpc::ServerContext*, const hanmo::v1::ListModelsRequest*,
                              hanmo::v1::ListModelsResponse* response) {
  for (const auto& model : models) {
    hanmo::v1::ModelSummary* summary = response->add_models();
    summary->set_name(model.name());
    *summary->mutable_tasks() = model.tasks();
    summary->set_state(model.state());
    if (model.version() == 0) continue;
    hanmo::v1::ModelVersion* version = summary->add_versions();
    version->set_version(model.version());
    version->set_state(model.state());
    *version->mutable_labels() = model.labels();
    version->set_is_default(true);
  }
  return status;
}

Status FakeServer::DescribeModel(grpc::ServerContext*,
                                 const hanmo::v1::DescribeModelRequest* request,
                                 hanmo::v1::DescribeModelResponse* response) {
  for (const auto& model : models) {
    if (model.name() != request->name()) continue;
    *response = model;
    return status;
  }
  return Status(StatusCode::NOT_FOUND, "name: there is no such model");
}

Status FakeServer::Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest*,
                         grpc::health::v1::HealthCheckResponse* response) {
  response->set_status(health.front());
  return status;
}

Status FakeServer::Watch(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest*,
                         grpc::ServerWriter<grpc::health::v1::HealthCheckResponse>* writer) {
  grpc::health::v1::HealthCheckResponse response;
  for (const HealthState state : health) {
    response.set_status(state);
    writer->Write(response);
  }
  return Status(StatusCode::UNAVAILABLE, "the server is shutting down");
}

}  // namespace hanmo::testing
