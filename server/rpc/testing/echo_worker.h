// A worker in memory for tests of the front end and its benchmark: a text model writes its prompt
// again and again, a picture model paints noise, one that reads pictures tells their colours.
// Results come at once, or when they are released.
#ifndef HANMO_SERVER_RPC_TESTING_ECHO_WORKER_H_
#define HANMO_SERVER_RPC_TESTING_ECHO_WORKER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "server/batcher/batcher.h"
#include "server/batcher/worker.h"

namespace hanmo::testing {

// Thread-safe.
class EchoWorker : public WorkerLink {
 public:
  // `batcher` outlives the worker.
  EchoWorker(WorkerId id, Batcher* batcher) : id_(id), batcher_(batcher) {}

  // From now on results wait.
  void Hold();
  // Gives the waiting results out, oldest first; with `resume` later ones come at once again.
  void Release(bool resume);
  // Waits until `steps` steps in all have been received.
  void AwaitSteps(uint64_t steps);
  uint64_t steps();
  // Samples begun and not dropped.
  size_t samples();
  void AwaitSamples(size_t count);

  void Begin(SampleHandle sample, ModelId model, const SampleJob& job,
             hanmo::Resume resume) override;
  // Never suspends a step.
  void Run(const Step& step) override;
  void Resume(uint64_t step, absl::Duration budget) override;
  void Save(const std::vector<SampleHandle>& samples) override {}
  void Drop(const std::vector<SampleHandle>& samples) override;

 private:
  struct Sample {
    SampleJob job;
    uint32_t known = 0;  // prompt tokens run
    uint32_t done = 0;   // tokens written or denoising steps done
    bool ended = false;
  };

  void Report(StepResult result) ABSL_LOCKS_EXCLUDED(mu_);
  StepResult Execute(const Step& step) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Write(const Row& row, Sample* sample, RowResult* result);
  void Paint(StepKind kind, const Row& row, Sample* sample, RowResult* result);

  const WorkerId id_;
  Batcher* const batcher_;
  absl::Mutex mu_;
  std::map<SampleHandle, Sample> samples_ ABSL_GUARDED_BY(mu_);
  std::deque<StepResult> held_ ABSL_GUARDED_BY(mu_);
  bool holding_ ABSL_GUARDED_BY(mu_) = false;
  uint64_t steps_ ABSL_GUARDED_BY(mu_) = 0;
};

// The picture that EchoWorker paints.
Pixels Noise(uint32_t width, uint32_t height);
// And its score, where one is asked for: eleven different ones for eleven seeds in a row.
float ScoreOf(uint64_t seed);

// The token at `place` of what it writes about a picture: one of Painter's Chinese words, by the
// red of its pixels in order.
uint32_t SeenIn(const std::string& rgb, uint32_t place);

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_RPC_TESTING_ECHO_WORKER_H_
