// inference.GRPCInferenceService: the Open Inference Protocol and Triton's extensions to it, in
// front of the same models as hanmo.v1. docs/open-inference-protocol.md
#ifndef HANMO_SERVER_OPEN_INFERENCE_OPEN_INFERENCE_SERVICE_H_
#define HANMO_SERVER_OPEN_INFERENCE_OPEN_INFERENCE_SERVICE_H_

#include "inference/grpc_service.grpc.pb.h"
#include "server/open_inference/stream_infer.h"
#include "server/rpc/call_context.h"
#include "server/rpc/health_service.h"

namespace hanmo {

using Inference = inference::GRPCInferenceService;

// All methods take raw bytes; see wire_message.h.
using RawStates = Inference::WithRawCallbackMethod_ServerLive<
    Inference::WithRawCallbackMethod_ServerReady<Inference::WithRawCallbackMethod_ModelReady<
        Inference::WithRawCallbackMethod_ModelStatistics<Inference::Service>>>>;
using RawDescriptions =
    Inference::WithRawCallbackMethod_ServerMetadata<Inference::WithRawCallbackMethod_ModelMetadata<
        Inference::WithRawCallbackMethod_ModelConfig<RawStates>>>;
using RawRepository = Inference::WithRawCallbackMethod_RepositoryIndex<
    Inference::WithRawCallbackMethod_RepositoryModelLoad<
        Inference::WithRawCallbackMethod_RepositoryModelUnload<RawDescriptions>>>;
using RawInference = Inference::WithRawCallbackMethod_ModelInfer<
    Inference::WithRawCallbackMethod_ModelStreamInfer<RawRepository>>;

class OpenInferenceService final : public RawInference {
 public:
  // Both outlive the service.
  OpenInferenceService(const CallContext& server, const HealthService& health)
      : server_(server), health_(health) {}

  // Ends the streams that clients keep open, which would otherwise outlast the server.
  void EndStreams() { streams_.End(); }

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* rpc,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* rpc,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  // A model that there is not is not ready.
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* rpc,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* rpc,
                                           const grpc::ByteBuffer* request,
                                           grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* rpc,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* rpc,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* ModelStreamInfer(
      grpc::CallbackServerContext* rpc) override;
  grpc::ServerUnaryReactor* ModelConfig(grpc::CallbackServerContext* rpc,
                                        const grpc::ByteBuffer* request,
                                        grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* ModelStatistics(grpc::CallbackServerContext* rpc,
                                            const grpc::ByteBuffer* request,
                                            grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RepositoryIndex(grpc::CallbackServerContext* rpc,
                                            const grpc::ByteBuffer* request,
                                            grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RepositoryModelLoad(grpc::CallbackServerContext* rpc,
                                                const grpc::ByteBuffer* request,
                                                grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* RepositoryModelUnload(grpc::CallbackServerContext* rpc,
                                                  const grpc::ByteBuffer* request,
                                                  grpc::ByteBuffer* response) override;

 private:
  const CallContext& server_;
  const HealthService& health_;
  InferStreams streams_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_OPEN_INFERENCE_SERVICE_H_
