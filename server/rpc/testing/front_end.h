// The whole front end in this process, on a port of its own: real gRPC, real batcher, a worker in
// memory that has every model which is not broken.
#ifndef HANMO_SERVER_RPC_TESTING_FRONT_END_H_
#define HANMO_SERVER_RPC_TESTING_FRONT_END_H_

#include <memory>
#include <vector>

#include "server/batcher/batcher.h"
#include "server/batcher/batcher_loop.h"
#include "server/media/task_pool.h"
#include "server/rpc/call_context.h"
#include "server/rpc/rpc_server.h"
#include "server/rpc/testing/echo_worker.h"
#include "server/telemetry/metrics.h"

namespace hanmo::testing {

// "poet" (ByteModel), "painter" (Painter), "broken", "novelist": a poet with a context of 65536,
// and "scribe" (Scribe).
std::vector<Model> FiveModels();

class FrontEnd {
 public:
  enum class Observed { kYes, kNo };

  explicit FrontEnd(std::vector<Model> models = FiveModels(), LogLevel log_level = LogLevel::kError,
                    Observed observed = Observed::kYes);
  ~FrontEnd();

  RpcServer& server() { return *rpc_; }
  EchoWorker& worker() { return *worker_; }
  ModelTable& models() { return models_; }
  Batcher& batcher() { return loop_.batcher(); }
  Calls& calls() { return calls_; }
  // Only of one that is observed.
  Metrics& metrics() { return *metrics_; }
  TaskPool& media_pool() { return media_pool_; }
  // Outlives the calls that use it.
  void SetRepositoryControl(RepositoryControl* control) { context_.repository_control = control; }

 private:
  Log log_;
  ModelTable models_;
  Figures unobserved_;
  const std::unique_ptr<Metrics> metrics_;
  Figures& figures_;
  Calls calls_;
  TaskPool media_pool_;
  TaskPool tokenize_pool_;
  BatcherLoop loop_;
  CallContext context_;
  std::unique_ptr<RpcServer> rpc_;
  std::shared_ptr<EchoWorker> worker_;
};

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_RPC_TESTING_FRONT_END_H_
