// hanmo.v1.Models.
#ifndef HANMO_SERVER_RPC_MODELS_SERVICE_H_
#define HANMO_SERVER_RPC_MODELS_SERVICE_H_

#include "hanmo/v1/models.grpc.pb.h"
#include "server/rpc/model_table.h"
#include "server/telemetry/metrics.h"

namespace hanmo {

using RawModelsService = hanmo::v1::Models::WithRawCallbackMethod_ListModels<
    hanmo::v1::Models::WithRawCallbackMethod_DescribeModel<hanmo::v1::Models::Service>>;

class ModelsService final : public RawModelsService {
 public:
  // Both outlive the service.
  ModelsService(const ModelTable& models, const Metrics& metrics)
      : models_(models), metrics_(metrics) {}

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* rpc,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* DescribeModel(grpc::CallbackServerContext* rpc,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;

 private:
  const ModelTable& models_;
  const Metrics& metrics_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_MODELS_SERVICE_H_
