// What the fleet tells the batcher. Batcher itself answers in the server; tests record.
#ifndef HANMO_SERVER_WORKER_LINK_WORKER_EVENTS_H_
#define HANMO_SERVER_WORKER_LINK_WORKER_EVENTS_H_

#include <memory>

#include "server/batcher/request.h"
#include "server/batcher/worker.h"

namespace hanmo {

// The methods of Batcher with the same names. Per worker they come in order: AddWorker, then the
// rest, then WorkerLost, then perhaps AddWorker again. Called on gRPC's threads; none may block.
class WorkerEvents {
 public:
  virtual ~WorkerEvents() = default;
  virtual void AddWorker(WorkerId worker, std::shared_ptr<WorkerLink> link) = 0;
  virtual void ModelReady(WorkerId worker, ModelId model, ModelCapacity capacity) = 0;
  virtual void ModelFailed(ModelId model) = 0;
  virtual void StepDone(WorkerId worker, StepResult result) = 0;
  virtual void Saved(WorkerId worker, SavePoint save_point) = 0;
  virtual void WorkerLost(WorkerId worker) = 0;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_WORKER_LINK_WORKER_EVENTS_H_
