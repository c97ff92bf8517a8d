// The fleet's constructor for the server: its events go to the batcher. Apart from fleet.cc so that
// the fleet can be tested without a batcher.
#include <utility>

#include "server/batcher/batcher.h"
#include "server/worker_link/fleet.h"
#include "server/worker_link/member.h"

namespace hanmo {
namespace {

class BatcherEvents final : public WorkerEvents {
 public:
  explicit BatcherEvents(Batcher* batcher) : batcher_(batcher) {}
  void AddWorker(WorkerId worker, std::shared_ptr<WorkerLink> link) override {
    batcher_->AddWorker(worker, std::move(link));
  }
  void ModelReady(WorkerId worker, ModelId model, ModelCapacity capacity) override {
    batcher_->ModelReady(worker, model, capacity);
  }
  void ModelFailed(ModelId model) override { batcher_->ModelFailed(model); }
  void StepDone(WorkerId worker, StepResult result) override {
    batcher_->StepDone(worker, std::move(result));
  }
  void Saved(WorkerId worker, SavePoint save_point) override {
    batcher_->Saved(worker, std::move(save_point));
  }
  void WorkerLost(WorkerId worker) override { batcher_->WorkerLost(worker); }

 private:
  Batcher* const batcher_;
};

}  // namespace

Fleet::Fleet(FleetOptions options, std::vector<FleetModel> models, Batcher* batcher,
             FleetObserver* observer)
    : options_(std::move(options)),
      models_(std::make_unique<ModelList>(std::move(models))),
      batcher_events_(std::make_unique<BatcherEvents>(batcher)),
      events_(batcher_events_.get()),
      observer_(observer) {}

}  // namespace hanmo
