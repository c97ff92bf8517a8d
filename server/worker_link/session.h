// One stream to one worker: the batcher's WorkerLink on one side, gRPC on the other.
//
// Commands go into an outgoing queue with one write in flight, so no caller ever waits for the
// socket; the batcher bounds the queue by its steps in flight and samples begun. Events come on
// gRPC's threads, one at a time and in the worker's order.
#ifndef HANMO_SERVER_WORKER_LINK_SESSION_H_
#define HANMO_SERVER_WORKER_LINK_SESSION_H_

#include <grpcpp/grpcpp.h>

#include <deque>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "hanmo/worker/v1/worker.grpc.pb.h"
#include "server/batcher/worker.h"
#include "server/worker_link/wire.h"

namespace hanmo {

// What comes up the stream. Called on gRPC's threads, one call at a time.
class SessionListener {
 public:
  virtual ~SessionListener() = default;
  // The handshake is done and the versions agree.
  virtual void OnHello(const WorkerHello& hello) = 0;
  virtual void OnLoaded(ModelId model, const absl::StatusOr<LoadedModel>& loaded) = 0;
  virtual void OnUnloaded(ModelId model) {}
  virtual void OnStepDone(StepResult result) = 0;
  virtual void OnSaved(SavePoint save_point) = 0;
  // Exactly once and last; the listener may be destroyed afterwards. UNAVAILABLE when the worker
  // died, FAILED_PRECONDITION when the versions differ.
  virtual void OnClosed(const absl::Status& status) = 0;
};

class Session final : public WorkerLink,
                      private grpc::ClientBidiReactor<wire::RunRequest, wire::RunResponse> {
 public:
  // Opens the stream on `channel` and sends Hello. The session keeps itself alive until OnClosed;
  // the caller keeps it at least as long, and lets it go on a thread that is not gRPC's.
  static std::shared_ptr<Session> Open(std::shared_ptr<grpc::Channel> channel,
                                       SessionListener* listener);

  // Commands, from any thread; dropped once the stream has ended.
  void Load(const LoadCommand& load);
  void Unload(ModelId model);
  void Begin(SampleHandle sample, ModelId model, const SampleJob& job,
             hanmo::Resume resume) override;
  void Run(const Step& step) override;
  void Resume(uint64_t step, absl::Duration budget) override;
  void Save(const std::vector<SampleHandle>& samples) override;
  void Drop(const std::vector<SampleHandle>& samples) override;

  // Ends the stream; OnClosed follows soon on another thread.
  void Close();

 private:
  Session(std::shared_ptr<grpc::Channel> channel, SessionListener* listener);

  void Send(wire::RunRequest request) ABSL_LOCKS_EXCLUDED(mu_);
  void OnWriteDone(bool ok) override;
  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;
  void Deliver(wire::RunResponse& response);
  void DeliverHello(const wire::HelloReply& hello);

  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<wire::Worker::Stub> stub_;
  SessionListener* const listener_;
  grpc::ClientContext context_;
  std::shared_ptr<Session> self_;  // until OnDone
  wire::RunResponse incoming_;     // of the read under way
  absl::Status refused_;           // why this end closed the stream

  absl::Mutex mu_;
  std::deque<wire::RunRequest> outgoing_ ABSL_GUARDED_BY(mu_);  // the front is being written
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_WORKER_LINK_SESSION_H_
