// hanmo.v1.Models.
#ifndef HANMO_SERVER_RPC_MODELS_SERVICE_H_
#define HANMO_SERVER_RPC_MODELS_SERVICE_H_

#include "hanmo/v1/models.grpc.pb.h"
#include "server/rpc/model_table.h"

namespace hanmo {

using RawModelsService = hanmo::v1::Models::WithRawCallbackMethod_ListModels<
    hanmo::v1::Models::WithRawCallbackMethod_DescribeModel<hanmo::v1::Models::Service>>;

class ModelsService final : public RawModelsService {
 public:
  // `models` outlives the service.
  explicit ModelsService(const ModelTable& models) : models_(models) {}

  grpc::ServerUnaryReactor* ListModels(grpc::CallbackServerContext* rpc,
                                       const grpc::ByteBuffer* request,
                                       grpc::ByteBuffer* response) override;
  grpc::ServerUnaryReactor* DescribeModel(grpc::CallbackServerContext* rpc,
                                          const grpc::ByteBuffer* request,
                                          grpc::ByteBuffer* response) override;

 private:
  const ModelTable& models_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_MODELS_SERVICE_H_
