// The worker's end of the stream: commands in, events out, in order.
//
// Threads: gRPC's thread of the stream reads commands into a bounded queue; one compute thread, for
// the life of the process, takes them off, runs them on the executor and writes the events. So the
// next step waits here while one runs, and a server that does not read stops the worker, not its
// memory. Models are read on a thread of their own; the compute thread then warms them up.
//
// A picture step with a budget is suspended by not returning: at the yield point where the budget
// has passed the compute thread answers, then takes further commands off the queue and runs them
// there, on top of the step, until its Resume comes.
#ifndef HANMO_WORKERS_SERVICE_H_
#define HANMO_WORKERS_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "hanmo/worker/v1/worker.grpc.pb.h"
#include "server/worker_link/wire.h"
#include "workers/executor.h"
#include "workers/loading_thread.h"

namespace hanmo {

class WorkerService final : public wire::Worker::Service {
 public:
  using Stream = grpc::ServerReaderWriter<wire::RunResponse, wire::RunRequest>;

  // Commands waiting for the compute thread at most; the stream is not read further beyond it.
  static constexpr size_t kMaxQueuedCommands = 1024;

  // `executor` outlives the service and is used by the compute thread alone, but for reading.
  // `start_thread` runs first on both threads (the number of compute threads is a setting of each).
  // `stream_ended` is called after each served stream, when its samples are gone.
  WorkerService(Executor* executor, std::function<void()> start_thread,
                std::function<void()> stream_ended);
  // The server that carries this service is shut down first.
  ~WorkerService() override;

  grpc::Status Run(grpc::ServerContext* context, Stream* stream) override;

 private:
  // A model that is being read.
  struct Loading {
    LoadCommand command;
    Stream* stream = nullptr;
    absl::Duration start;               // of the reading
    std::atomic<bool> unwanted{false};  // it was unloaded meanwhile, or the server is gone
  };
  // `stream` takes the events; a null stream detaches the executor.
  struct Command {
    Stream* stream = nullptr;
    wire::RunRequest request;
    std::shared_ptr<Loading> read;  // not a command of the server: this is read by now
  };

  grpc::Status Handshake(Stream* stream);
  void Enqueue(Command command) ABSL_LOCKS_EXCLUDED(mu_);
  void Compute() ABSL_LOCKS_EXCLUDED(mu_);
  void Execute(Command command);
  void Detach();
  void Load(const Command& command);
  void FinishLoad(const std::shared_ptr<Loading>& loading);
  void Unload(const Command& command);
  void AnswerLoad(const Loading& loading, absl::StatusOr<LoadedModel> loaded);
  void Save(const Command& command);
  void Drop(const Command& command);

  // A step with a budget, on the stack of the compute thread.
  class SlicedStep;
  void Run(const Command& command);
  void RunInSlices(const Step& step, Stream* stream);
  absl::Status CheckBudget(const Step& step) const;
  // Runs commands while a step is suspended. False: it is not wanted any more.
  bool AwaitResume(SlicedStep* step) ABSL_LOCKS_EXCLUDED(mu_);
  void Answer(Stream* stream, StepResult result, absl::Duration start);
  bool ready() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !queue_.empty() || stopping_; }
  bool has_room() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return queue_.size() < kMaxQueuedCommands;
  }
  bool idle() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return queue_.empty() && !busy_; }

  Executor* const executor_;
  const std::function<void()> start_thread_;
  const std::function<void()> stream_ended_;
  // Of the compute thread only.
  std::optional<absl::Duration> last_step_end_;
  DeviceMemory memory_;  // as of memory_read_
  absl::Duration memory_read_ = -absl::InfiniteDuration();
  SlicedStep* suspended_ = nullptr;
  std::map<ModelId, std::shared_ptr<Loading>> loadings_;

  absl::Mutex mu_;
  std::deque<Command> queue_ ABSL_GUARDED_BY(mu_);
  bool busy_ ABSL_GUARDED_BY(mu_) = false;     // a command is being executed
  bool serving_ ABSL_GUARDED_BY(mu_) = false;  // a stream is open
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  LoadingThread loading_thread_;
  std::thread compute_;  // last: it uses all of the above
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_SERVICE_H_
