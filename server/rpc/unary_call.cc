#include "server/rpc/unary_call.h"

#include <utility>

#include "server/rpc/grpc_status.h"
#include "server/rpc/wire_message.h"

namespace hanmo {

grpc::ServerUnaryReactor* UnaryCall::Start(const CallContext& server,
                                           grpc::CallbackServerContext* rpc,
                                           const grpc::ByteBuffer& request,
                                           grpc::ByteBuffer* response) {
  auto call = std::make_shared<UnaryCall>(server, rpc, response);
  call->self_ = call;
  call->Begin(request);
  return call.get();  // gRPC keeps it from OnDone until it has taken it over
}

void UnaryCall::PictureReady(hanmo::v1::Output* output, std::string file) {
  output->mutable_picture()->set_data(std::move(file));
}

void UnaryCall::Send(const absl::Status& status) {
  if (status.ok()) *bytes_ = SerializeMessage(response());
  TellIds(status);
  Finish(ToGrpcStatus(status, rpc()));
}

void UnaryCall::OnDone() {
  Close();
  const std::shared_ptr<UnaryCall> last = std::move(self_);
}

}  // namespace hanmo
