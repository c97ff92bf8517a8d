#include "server/rpc/generation_service.h"

#include <string>
#include <utility>
#include <vector>

#include "server/rpc/pooled_call.h"
#include "server/rpc/stream_call.h"
#include "server/rpc/token_calls.h"
#include "server/rpc/unary_call.h"

namespace hanmo {

grpc::ServerUnaryReactor* GenerationService::Generate(grpc::CallbackServerContext* rpc,
                                                      const grpc::ByteBuffer* request,
                                                      grpc::ByteBuffer* response) {
  return UnaryCall::Start(server_, rpc, *request, response);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerationService::GenerateStream(
    grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request) {
  return StreamCall::Start(server_, rpc, *request);
}

grpc::ServerUnaryReactor* GenerationService::Tokenize(grpc::CallbackServerContext* rpc,
                                                      const grpc::ByteBuffer* request,
                                                      grpc::ByteBuffer* response) {
  return PooledCall::Start(server_, rpc, request->Length(),
                           [this, request = *request, response]() -> absl::Status {
                             return TokenizeText(*server_.models, request, response);
                           });
}

grpc::ServerUnaryReactor* GenerationService::Detokenize(grpc::CallbackServerContext* rpc,
                                                        const grpc::ByteBuffer* request,
                                                        grpc::ByteBuffer* response) {
  return PooledCall::Start(server_, rpc, request->Length(),
                           [this, request = *request, response]() -> absl::Status {
                             return DetokenizeIds(*server_.models, request, response);
                           });
}

}  // namespace hanmo
