// The running server: what main.cc starts, drains and stops.
//
//   metrics port and gRPC port (every model NOT_SERVING) → workers → each model SERVING when warm
//   → NOT_SERVING → delay → refuse new requests, finish accepted ones → abort the rest → end
#ifndef HANMO_SERVER_LIFECYCLE_H_
#define HANMO_SERVER_LIFECYCLE_H_

#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/batcher/batcher.h"
#include "server/batcher/batcher_loop.h"
#include "server/config.h"
#include "server/media/task_pool.h"
#include "server/model_control.h"
#include "server/open_inference/open_inference_service.h"
#include "server/rpc/admin_service.h"
#include "server/rpc/call_context.h"
#include "server/rpc/model_table.h"
#include "server/rpc/rpc_server.h"
#include "server/telemetry/log.h"
#include "server/telemetry/metrics.h"
#include "server/telemetry/metrics_server.h"
#include "server/telemetry/tracer.h"
#include "server/worker_link/fleet.h"

namespace hanmo {

class Server {
 public:
  // Both ports answer when it returns; the workers are still loading. Errors name the option.
  static absl::StatusOr<std::unique_ptr<Server>> Start(const Config& config,
                                                       const std::string& version);
  ~Server();

  const std::string& address() const { return rpc_->address(); }
  // Each empty without such a port.
  std::string metrics_address() const;
  std::string health_address() const { return rpc_->health_address(); }
  std::string admin_address() const;

  // Drains as the configuration says; blocks until it is done. Once.
  void Drain();

 private:
  class FleetEvents;

  Server(const Config& config, const std::string& version);

  absl::Status StartFleet(std::vector<FleetModel> models);
  absl::Status StartAdmin();
  void PublishStates();
  // NOT_SERVING, the delay, and from then on new requests are refused. Once; later calls wait for
  // the first one.
  void StopAccepting() ABSL_LOCKS_EXCLUDED(stopping_);

  const Config config_;
  Log log_;
  ModelTable models_;
  const std::unique_ptr<Metrics> metrics_;  // null without a port for them
  Figures unobserved_;
  Figures& figures_;  // one of the two
  std::unique_ptr<Tracer> tracer_;
  Calls calls_;
  std::unique_ptr<MetricsServer> metrics_server_;
  TaskPool media_pool_;
  TaskPool tokenize_pool_;
  BatcherLoop loop_;
  CallContext context_;
  ModelControl control_;
  absl::Mutex stopping_;
  bool refusing_ ABSL_GUARDED_BY(stopping_) = false;
  std::unique_ptr<RpcServer> rpc_;
  std::unique_ptr<FleetEvents> fleet_events_;
  std::unique_ptr<Fleet> fleet_;
  std::unique_ptr<AdminService> admin_;
  std::unique_ptr<RepositoryControl> repository_control_;
  CallContext admin_context_;
  std::unique_ptr<OpenInferenceService> admin_inference_;
  std::unique_ptr<GrpcPort> admin_port_;
};

// "auto" becomes every GPU that the system shows, else the CPU; each device `workers` times.
std::vector<std::string> ExpandDevices(const Config& config);

}  // namespace hanmo

#endif  // HANMO_SERVER_LIFECYCLE_H_
