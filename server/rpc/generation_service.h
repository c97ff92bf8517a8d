// hanmo.v1.Generation.
#ifndef HANMO_SERVER_RPC_GENERATION_SERVICE_H_
#define HANMO_SERVER_RPC_GENERATION_SERVICE_H_

#include "hanmo/v1/generation.grpc.pb.h"
#include "server/rpc/call_context.h"

namespace hanmo {

// All methods take raw bytes; see wire_message.h.
using RawGenerationService = hanmo::v1::Generation::WithRawCallbackMethod_Generate<
    hanmo::v1::Generation::WithRawCallbackMethod_GenerateStream<
        hanmo::v1::Generation::WithRawCallbackMethod_Tokenize<
            hanmo::v1::Generation::WithRawCallbackMethod_Detokenize<
                hanmo::v1::Generation::WithRawCallbackMethod_Cancel<
                    hanmo::v1::Generation::Service>>>>>;

class GenerationService final : public RawGenerationService {
 public:
  // `server` outlives the service.
  explicit GenerationService(const CallContext& server) : server_(server) {}

  grpc::ServerUnaryReactor* Generate(grpc::CallbackServerContext* rpc,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerWriteReactor<grpc::ByteBuffer>* GenerateStream(
      grpc::CallbackServerContext* rpc, const grpc::ByteBuffer* request) override;
  grpc::ServerUnaryReactor* Tokenize(grpc::CallbackServerContext* rpc,
                                     const grpc::ByteBuffer* request,
                                     grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Detokenize(grpc::CallbackServerContext* rpc,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* Cancel(grpc::CallbackServerContext* rpc,
                                   const grpc::ByteBuffer* request,
                                   grpc::ByteBuffer* response) override;

 private:
  const CallContext& server_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_GENERATION_SERVICE_H_
