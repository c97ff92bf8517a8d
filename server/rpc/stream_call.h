// A GenerateStream call.
#ifndef HANMO_SERVER_RPC_STREAM_CALL_H_
#define HANMO_SERVER_RPC_STREAM_CALL_H_

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/support/server_callback.h"
#include "server/rpc/generation_call.h"

namespace hanmo {

// Owns itself until gRPC is done with it. Events wait in a bounded queue; one write is under way at
// a time. While the queue is over its bound the sink is full and the batcher parks the samples.
// Previews never fill it: of each sample only the newest waits, and what exceeds the stream's bytes
// per second is left out.
class StreamCall final : public grpc::ServerWriteReactor<grpc::ByteBuffer>, public GenerationCall {
 public:
  // Events and bytes waiting above which the sink is full. What was under way when it became full
  // still comes, so the queue can hold a little more.
  static constexpr size_t kMaxEvents = 64;
  static constexpr size_t kMaxBytes = 1 << 20;
  // Bytes of a picture per event.
  static constexpr size_t kChunkBytes = 512 << 10;

  static grpc::ServerWriteReactor<grpc::ByteBuffer>* Start(const CallContext& server,
                                                           grpc::CallbackServerContext* rpc,
                                                           const grpc::ByteBuffer& request);

  StreamCall(const CallContext& server, grpc::CallbackServerContext* rpc)
      : GenerationCall(server, rpc, "hanmo.v1.Generation/GenerateStream") {}

  // --- gRPC's side. ---
  void OnCancel() override { ClientLeft(); }
  void OnWriteDone(bool ok) override;
  void OnDone() override;

  // --- Sink. ---
  void OnQueued(uint32_t position, absl::Duration wait) override;
  void OnStep(uint32_t index, uint32_t step, uint32_t steps) override;
  void OnPreview(uint32_t index, uint32_t step, Pixels pixels) override;
  bool full() const override { return full_.load(std::memory_order_acquire); }
  using GenerationCall::OnDone;

 private:
  using Event = hanmo::v1::GenerateStreamResponse;

  void TextGrew(uint32_t index, const std::string& text, absl::Span<const Token> tokens) override;
  void PictureReady(hanmo::v1::Output* output, std::string file) override;
  void Send(const absl::Status& status) override;

  void Push(Event event) ABSL_LOCKS_EXCLUDED(mu_);
  void PushPreview(Event event) ABSL_LOCKS_EXCLUDED(mu_);
  // Whether the stream's previews may take bytes now.
  bool MayPreview() ABSL_LOCKS_EXCLUDED(mu_);
  // Puts an event that only replaces or extends the last waiting one into it.
  bool Merge(const Event& event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes the next thing to do and does it outside the lock.
  void Advance() ABSL_LOCKS_EXCLUDED(mu_);

  std::shared_ptr<StreamCall> self_;
  grpc::ByteBuffer writing_bytes_;  // of the write under way
  std::atomic<bool> full_{false};

  absl::Mutex mu_;
  std::deque<Event> events_ ABSL_GUARDED_BY(mu_);
  // Events before merging and their bytes: what `events_` stands for.
  size_t waiting_ ABSL_GUARDED_BY(mu_) = 0;
  size_t waiting_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  // A token bucket: bytes that previews may take now, of a second's worth at most. One preview may
  // overdraw it.
  double preview_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  absl::Time previewed_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();
  bool began_ ABSL_GUARDED_BY(mu_) = false;  // something was sent
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool broken_ ABSL_GUARDED_BY(mu_) = false;  // the client is gone: nothing can be written
  bool ended_ ABSL_GUARDED_BY(mu_) = false;   // end_status_ is to be sent after the events
  absl::Status end_status_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_STREAM_CALL_H_
