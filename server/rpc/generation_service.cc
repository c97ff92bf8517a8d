#include "server/rpc/generation_service.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/rpc/generation_call.h"
#include "server/rpc/pooled_call.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/stream_call.h"
#include "server/rpc/token_calls.h"
#include "server/rpc/unary_call.h"
#include "server/rpc/unary_reply.h"
#include "server/rpc/violations.h"
#include "server/rpc/wire_message.h"

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

grpc::ServerUnaryReactor* GenerationService::Cancel(grpc::CallbackServerContext* rpc,
                                                    const grpc::ByteBuffer* request,
                                                    grpc::ByteBuffer* response) {
  hanmo::v1::CancelRequest proto;
  hanmo::v1::CancelResponse reply;
  if (auto status = ParseMessage(*request, &proto); !status.ok()) {
    return Reply(rpc, status, reply, response);
  }
  if (!IsRequestId(proto.request_id())) {
    const absl::Status status = FieldError(
        "request_id",
        absl::StrCat("must be 1 to ", kMaxRequestIdBytes, " characters of [A-Za-z0-9._-]"));
    return Reply(rpc, status, reply, response);
  }
  const auto calls = server_.calls->Find(proto.request_id());
  for (const auto& call : calls) {
    call->Cancel(absl::CancelledError("cancelled by its request id"));
  }
  reply.set_requests(static_cast<uint32_t>(calls.size()));
  const absl::Status status =
      calls.empty() ? absl::NotFoundError(absl::StrCat("request_id: no request \"",
                                                       proto.request_id(), "\" runs or waits"))
                    : absl::OkStatus();
  return Reply(rpc, status, reply, response);
}

}  // namespace hanmo
