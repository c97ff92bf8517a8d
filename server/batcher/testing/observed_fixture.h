// A batcher whose admissions and ends are written down.
#ifndef HANMO_SERVER_BATCHER_TESTING_OBSERVED_FIXTURE_H_
#define HANMO_SERVER_BATCHER_TESTING_OBSERVED_FIXTURE_H_

#include <memory>
#include <utility>
#include <vector>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {

class ObservedTest : public BatcherTest {
 protected:
  struct Observer : BatcherObserver {
    void OnRejected(ModelId, Rejection reason) override { rejections.push_back(reason); }
    void OnDone(ModelId, absl::StatusCode code, const Usage&, absl::Duration) override {
      codes.push_back(code);
    }
    void OnCancelled(ModelId) override { ++cancelled; }
    void OnDeadlineMissed(ModelId, bool was_running) override {
      (was_running ? missed_running : missed_queued)++;
    }
    void OnLoad(ModelId model, uint32_t waiting, uint32_t running) override {
      if (model == kText) load = {waiting, running};
    }
    std::vector<Rejection> rejections;
    std::vector<absl::StatusCode> codes;
    int cancelled = 0, missed_running = 0, missed_queued = 0;
    std::pair<uint32_t, uint32_t> load;
  };

  void StartObserved() {
    batcher_ = std::make_unique<Batcher>(options_, &log_, [this] { ++wakes_; });
    AddWorker();
    Tick();
  }

  Observer log_;
};

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_BATCHER_TESTING_OBSERVED_FIXTURE_H_
