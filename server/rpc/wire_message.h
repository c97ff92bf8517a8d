// Messages to and from gRPC's buffers. The services take raw buffers because gRPC answers a message
// that does not parse with INTERNAL and no word why.
#ifndef HANMO_SERVER_RPC_WIRE_MESSAGE_H_
#define HANMO_SERVER_RPC_WIRE_MESSAGE_H_

#include "absl/status/status.h"
#include "google/protobuf/message.h"
#include "grpcpp/support/byte_buffer.h"

namespace hanmo {

// INVALID_ARGUMENT names the field that is not valid UTF-8, else says that the bytes are no such
// message.
absl::Status ParseMessage(const grpc::ByteBuffer& buffer, google::protobuf::Message* message);

grpc::ByteBuffer SerializeMessage(const google::protobuf::Message& message);

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_WIRE_MESSAGE_H_
