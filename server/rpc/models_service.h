// hanmo.v1.Models.
#ifndef HANMO_SERVER_RPC_MODELS_SERVICE_H_
#define HANMO_SERVER_RPC_MODELS_SERVICE_H_

#include "hanmo/v1/models.grpc.pb.h"
#include "server/rpc/model_table.h"
#include "server/telemetry/figures.h"

namespace hanmo {

using RawModelsService = hanmo::v1::Models::WithRawCallbackMethod_ListModels<
    hanmo::v1::Models::WithRawCallbackMethod_DescribeModel<hanmo::v1::Models::Service>>;

class ModelsService final : public RawModelsService {
 public:
  // Both outlive the service.
  ModelsService(const ModelTable& models, const Figures& figures)
      : models_(models), figures_(figures) {}

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* rpc,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* DescribeModel(grpc::CallbackServerContext* rpc,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;

 private:
  const ModelTable& models_;
  const Figures& figures_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_MODELS_SERVICE_H_
