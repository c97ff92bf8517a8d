// Answers a unary call whose work is done at once.
#ifndef HANMO_SERVER_RPC_UNARY_REPLY_H_
#define HANMO_SERVER_RPC_UNARY_REPLY_H_

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/server_callback.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/wire_message.h"

namespace hanmo {

inline grpc::ServerUnaryReactor* Reply(grpc::CallbackServerContext* rpc, const absl::Status& status,
                                       const google::protobuf::Message& message,
                                       grpc::ByteBuffer* response) {
  if (status.ok()) *response = SerializeMessage(message);
  grpc::ServerUnaryReactor* reactor = rpc->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status, rpc));
  return reactor;
}

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_UNARY_REPLY_H_
