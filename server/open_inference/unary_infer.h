// A ModelInfer call.
#ifndef HANMO_SERVER_OPEN_INFERENCE_UNARY_INFER_H_
#define HANMO_SERVER_OPEN_INFERENCE_UNARY_INFER_H_

#include <memory>
#include <string>

#include "grpcpp/support/server_callback.h"
#include "server/open_inference/infer_call.h"

namespace hanmo {

// Owns itself until gRPC is done with it.
class UnaryInfer final : public grpc::ServerUnaryReactor, public InferCall::Client {
 public:
  // `response` is gRPC's and lives as long as the reactor.
  static grpc::ServerUnaryReactor* Start(const CallContext& server,
                                         grpc::CallbackServerContext* rpc,
                                         const grpc::ByteBuffer& request,
                                         grpc::ByteBuffer* response);

  UnaryInfer(grpc::CallbackServerContext* rpc, grpc::ByteBuffer* response)
      : rpc_(rpc), bytes_(response) {}

  // --- gRPC's side. ---
  void OnCancel() override { call_->ClientLeft(); }
  void OnDone() override;

  // --- The call's. ---
  void Identified(const std::string& request_id) override;
  void End(const std::shared_ptr<InferCall>& call, const absl::Status& status,
           inference::ModelInferResponse response) override;

 private:
  grpc::CallbackServerContext* const rpc_;
  grpc::ByteBuffer* const bytes_;
  std::string request_id_;
  std::shared_ptr<InferCall> call_;  // holds this, too, until OnDone
};

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_UNARY_INFER_H_
