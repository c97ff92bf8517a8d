// hanmo.v1.Admin.
#ifndef HANMO_SERVER_RPC_ADMIN_SERVICE_H_
#define HANMO_SERVER_RPC_ADMIN_SERVICE_H_

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "hanmo/v1/admin.grpc.pb.h"
#include "server/model_control.h"
#include "server/rpc/calls.h"
#include "server/rpc/model_table.h"

namespace hanmo {

class AdminService final : public hanmo::v1::Admin::CallbackService {
 public:
  // `stop_accepting` begins to drain: it returns when new requests are refused, and may be called
  // more than once, from any thread. The arguments outlive the service.
  AdminService(ModelControl* control, ModelTable* models, Calls* calls,
               std::function<void()> stop_accepting)
      : control_(*control),
        models_(*models),
        calls_(*calls),
        stop_accepting_(std::move(stop_accepting)) {}
  // After its port is closed.
  ~AdminService() override;

  grpc::ServerUnaryReactor* LoadModel(grpc::CallbackServerContext* rpc,
                                      const hanmo::v1::LoadModelRequest* request,
                                      hanmo::v1::LoadModelResponse* response) override;
  grpc::ServerUnaryReactor* UnloadModel(grpc::CallbackServerContext* rpc,
                                        const hanmo::v1::UnloadModelRequest* request,
                                        hanmo::v1::UnloadModelResponse* response) override;
  grpc::ServerUnaryReactor* SetLabel(grpc::CallbackServerContext* rpc,
                                     const hanmo::v1::SetLabelRequest* request,
                                     hanmo::v1::SetLabelResponse* response) override;
  grpc::ServerUnaryReactor* RemoveLabel(grpc::CallbackServerContext* rpc,
                                        const hanmo::v1::RemoveLabelRequest* request,
                                        hanmo::v1::RemoveLabelResponse* response) override;
  grpc::ServerWriteReactor<hanmo::v1::DrainResponse>* Drain(
      grpc::CallbackServerContext* rpc, const hanmo::v1::DrainRequest* request) override;

 private:
  class DrainCall;

  ModelControl& control_;
  ModelTable& models_;
  Calls& calls_;
  const std::function<void()> stop_accepting_;

  absl::Mutex mu_;
  std::vector<std::thread> drains_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_ADMIN_SERVICE_H_
