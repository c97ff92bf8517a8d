// A Generate call.
#ifndef HANMO_SERVER_RPC_UNARY_CALL_H_
#define HANMO_SERVER_RPC_UNARY_CALL_H_

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "grpcpp/support/server_callback.h"
#include "server/rpc/generation_call.h"

namespace hanmo {

// Owns itself until gRPC is done with it.
class UnaryCall final : public grpc::ServerUnaryReactor, public GenerationCall {
 public:
  // `response` is gRPC's and lives as long as the reactor.
  static grpc::ServerUnaryReactor* Start(const CallContext& server,
                                         grpc::CallbackServerContext* rpc,
                                         const grpc::ByteBuffer& request,
                                         grpc::ByteBuffer* response);

  UnaryCall(const CallContext& server, grpc::CallbackServerContext* rpc, grpc::ByteBuffer* response)
      : GenerationCall(server, rpc, "hanmo.v1.Generation/Generate"), bytes_(response) {}

  // --- gRPC's side. ---
  void OnCancel() override { ClientLeft(); }
  void OnDone() override;

 private:
  // Lets gRPC call OnCancel and OnDone on the thread that is there instead of waking another: they
  // are short and wait for nothing. So the call may be gone when Finish returns.
  bool InternalInlineable() override { return true; }

  void PictureReady(hanmo::v1::Output* output, std::string file) override;
  void Send(const absl::Status& status) override;

  using GenerationCall::OnDone;  // the batcher's, with its arguments

  grpc::ByteBuffer* const bytes_;
  std::shared_ptr<UnaryCall> self_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_UNARY_CALL_H_
