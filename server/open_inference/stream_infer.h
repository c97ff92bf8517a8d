// A ModelStreamInfer call: requests come and responses go as they are ready, in any order.
#ifndef HANMO_SERVER_OPEN_INFERENCE_STREAM_INFER_H_
#define HANMO_SERVER_OPEN_INFERENCE_STREAM_INFER_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "server/open_inference/infer_call.h"

namespace hanmo {

class StreamInfer;

// The streams that are open: a client may keep one open for ever, and the server must end.
class InferStreams {
 public:
  void Add(const std::shared_ptr<StreamInfer>& stream) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(const StreamInfer* stream) ABSL_LOCKS_EXCLUDED(mu_);
  // Ends all of them, and those that come later, with UNAVAILABLE.
  void End() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Mutex mu_;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::shared_ptr<StreamInfer>> streams_ ABSL_GUARDED_BY(mu_);
};

// InferStreams owns it until gRPC is done with it. Responses wait in a bounded queue; while it is
// over its bound the stream's samples are parked and no request is read. A request that fails gets
// a response that says so, and the stream goes on; a client that sends the header
// `triton_grpc_error: true` gets the error as the stream's end instead.
class StreamInfer final : public grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>,
                          public InferCall::Client,
                          public std::enable_shared_from_this<StreamInfer> {
 public:
  // Responses and bytes waiting above which the stream is full. What was under way when it became
  // full still comes, so the queue can hold a little more.
  static constexpr size_t kMaxResponses = 64;
  static constexpr size_t kMaxBytes = 1 << 20;
  // Requests under way; more are left to wait in the connection.
  static constexpr size_t kMaxCalls = 64;

  // `streams` outlives the stream.
  static grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Start(
      const CallContext& server, grpc::CallbackServerContext* rpc, InferStreams* streams);

  StreamInfer(const CallContext& server, grpc::CallbackServerContext* rpc, InferStreams* streams);

  // Reads no more and ends with `status` when what it has read is answered.
  void EndWith(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);

  // --- gRPC's side. ---
  void OnReadDone(bool ok) override;
  void OnWriteDone(bool ok) override;
  void OnCancel() override;
  void OnDone() override;

  // --- The calls'. ---
  void Respond(inference::ModelInferResponse response) override;
  void End(const std::shared_ptr<InferCall>& call, const absl::Status& status,
           inference::ModelInferResponse response) override;
  bool full() const override { return full_.load(std::memory_order_acquire); }

 private:
  using CallList = std::vector<std::shared_ptr<InferCall>>;

  struct Waiting {
    inference::ModelStreamInferResponse response;
    std::shared_ptr<InferCall> ends;  // whose last response this is; else null
  };

  void Push(Waiting waiting) ABSL_LOCKS_EXCLUDED(mu_);
  void Run(const std::shared_ptr<InferCall>& call, const grpc::ByteBuffer& request)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Does what there is to do.
  void Advance() ABSL_LOCKS_EXCLUDED(mu_);
  // Takes the next things to do and does them outside the lock; true when there may be more.
  bool AdvanceOnce() ABSL_LOCKS_EXCLUDED(mu_);
  // Nobody will read any more: forgets what waits. Returns the calls that ended in it.
  CallList Break() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Remove(const InferCall* call) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const CallContext& server_;
  grpc::CallbackServerContext* const rpc_;
  InferStreams* const streams_;
  const bool errors_end_it_;
  grpc::ByteBuffer reading_bytes_;  // of the read under way
  grpc::ByteBuffer writing_bytes_;  // of the write under way
  std::atomic<bool> full_{false};

  absl::Mutex mu_;
  CallList calls_ ABSL_GUARDED_BY(mu_);  // until their last response is written
  std::deque<Waiting> waiting_ ABSL_GUARDED_BY(mu_);
  size_t waiting_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  std::shared_ptr<InferCall> writing_end_ ABSL_GUARDED_BY(mu_);  // `ends` of the write under way
  bool reading_ ABSL_GUARDED_BY(mu_) = false;
  // The one under way is not yet gRPC's: it must not come after Finish.
  bool starting_read_ ABSL_GUARDED_BY(mu_) = false;
  bool no_more_reads_ ABSL_GUARDED_BY(mu_) = false;
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;    // the client is gone: nothing can be written
  bool finished_ ABSL_GUARDED_BY(mu_) = false;  // nothing may be started any more
  absl::Status end_status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_STREAM_INFER_H_
