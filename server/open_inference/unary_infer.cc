#include "server/open_inference/unary_infer.h"

#include <utility>

#include "server/rpc/grpc_status.h"
#include "server/rpc/wire_message.h"

namespace hanmo {

grpc::ServerUnaryReactor* UnaryInfer::Start(const CallContext& server,
                                            grpc::CallbackServerContext* rpc,
                                            const grpc::ByteBuffer& request,
                                            grpc::ByteBuffer* response) {
  auto reactor = std::make_shared<UnaryInfer>(rpc, response);
  auto call = std::make_shared<InferCall>(server, rpc, reactor, /*streams=*/false);
  reactor->call_ = call;
  call->Begin(request);
  return reactor.get();  // gRPC keeps it from OnDone until it has taken it over
}

void UnaryInfer::Identified(const std::string& request_id) { request_id_ = request_id; }

void UnaryInfer::End(const std::shared_ptr<InferCall>&, const absl::Status& status,
                     inference::ModelInferResponse response) {
  if (status.ok()) *bytes_ = SerializeMessage(response);
  TellClient("x-request-id", request_id_, status, rpc_);
  Finish(ToGrpcStatus(status, rpc_));
}

void UnaryInfer::OnDone() {
  const std::shared_ptr<InferCall> last = std::move(call_);
  last->Close();
}

}  // namespace hanmo
