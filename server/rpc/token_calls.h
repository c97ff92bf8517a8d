// Tokenize and Detokenize: text and token ids of a model, without running it.
#ifndef HANMO_SERVER_RPC_TOKEN_CALLS_H_
#define HANMO_SERVER_RPC_TOKEN_CALLS_H_

#include "absl/status/status.h"
#include "grpcpp/support/byte_buffer.h"
#include "server/rpc/model_table.h"

namespace hanmo {

// From the bytes of a TokenizeRequest to those of a TokenizeResponse. INVALID_ARGUMENT with the
// field, NOT_FOUND for an unknown model, UNIMPLEMENTED for a model without a tokenizer.
absl::Status TokenizeText(const ModelTable& models, const grpc::ByteBuffer& request,
                          grpc::ByteBuffer* response);

// From the bytes of a DetokenizeRequest to those of a DetokenizeResponse; errors as above.
absl::Status DetokenizeIds(const ModelTable& models, const grpc::ByteBuffer& request,
                           grpc::ByteBuffer* response);

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_TOKEN_CALLS_H_
