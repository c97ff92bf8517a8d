// A server in this process, on a port of its own, that answers as a test says and notes what it was
// asked. For what a real server does not do on demand: errors, torn streams, calls that hang.
#ifndef HANMO_CLIENT_TESTING_FAKE_SERVER_H_
#define HANMO_CLIENT_TESTING_FAKE_SERVER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "grpcpp/server.h"
#include "hanmo/v1/generation.grpc.pb.h"
#include "hanmo/v1/models.grpc.pb.h"

namespace hanmo::testing {

// Set the answers before the call. Thread-safe towards gRPC.
class FakeServer final : private hanmo::v1::Generation::Service,
                         private hanmo::v1::Models::Service,
                         private grpc::health::v1::Health::Service {
 public:
  using HealthState = grpc::health::v1::HealthCheckResponse::ServingStatus;

  FakeServer();
  ~FakeServer() override;

  const std::string& address() const { return address_; }

  // Generate answers with the final one of these events. GenerateStream: these events, then
  // `status`; after the events it hangs until the call is cancelled when `hang` says so.
  std::vector<hanmo::v1::GenerateStreamResponse> events;
  grpc::Status status;
  bool hang = false;
  // All events are sent; the call hangs.
  absl::Notification hanging;
  // A hanging call was cancelled.
  absl::Notification cancelled;

  std::vector<hanmo::v1::DescribeModelResponse> models;
  // Check answers with the first one, Watch with all in order.
  std::vector<HealthState> health = {grpc::health::v1::HealthCheckResponse::SERVING};

  // Of the last of both.
  hanmo::v1::GenerateRequest request() const ABSL_LOCKS_EXCLUDED(mu_);
  int calls() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  grpc::Status Generate(grpc::ServerContext* context, const hanmo::v1::GenerateRequest* request,
                        hanmo::v1::GenerateResponse* response) override;
  grpc::Status GenerateStream(
      grpc::ServerContext* context, const hanmo::v1::GenerateRequest* request,
      grpc::ServerWriter<hanmo::v1::GenerateStreamResponse>* writer) override;
  grpc::Status Tokenize(grpc::ServerContext* context, const hanmo::v1::TokenizeRequest* request,
                        hanmo::v1::TokenizeResponse* response) override;
  grpc::Status Detokenize(grpc::ServerContext* context, const hanmo::v1::DetokenizeRequest* request,
                          hanmo::v1::DetokenizeResponse* response) override;
  grpc::Status ListModels(grpc::ServerContext* context, const hanmo::v1::ListModelsRequest* request,
                          hanmo::v1::ListModelsResponse* response) override;
  grpc::Status DescribeModel(grpc::ServerContext* context,
                             const hanmo::v1::DescribeModelRequest* request,
                             hanmo::v1::DescribeModelResponse* response) override;
  grpc::Status Check(grpc::ServerContext* context,
                     const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* response) override;
  grpc::Status Watch(grpc::ServerContext* context,
                     const grpc::health::v1::HealthCheckRequest* request,
                     grpc::ServerWriter<grpc::health::v1::HealthCheckResponse>* writer) override;

  std::string address_;
  std::unique_ptr<grpc::Server> server_;

  mutable absl::Mutex mu_;
  hanmo::v1::GenerateRequest request_ ABSL_GUARDED_BY(mu_);
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace hanmo::testing

#endif  // HANMO_CLIENT_TESTING_FAKE_SERVER_H_
