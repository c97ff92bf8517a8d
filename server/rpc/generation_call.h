// One Generate or GenerateStream call from its bytes to its answer: the part that both share. It is
// the batcher's sink of its request and builds the response; UnaryCall and StreamCall send it.
//
// Threads: Begin runs on a gRPC thread, or partly on the tokenize pool; the sink's methods on the
// batcher's thread; pictures are decoded and encoded on the media pool. Whatever comes last
// completes the call.
#ifndef HANMO_SERVER_RPC_GENERATION_CALL_H_
#define HANMO_SERVER_RPC_GENERATION_CALL_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/byte_buffer.h"
#include "hanmo/v1/generation.pb.h"
#include "server/batcher/sink.h"
#include "server/rpc/best_pictures.h"
#include "server/rpc/call_context.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/text_assembler.h"

namespace hanmo {

class GenerationCall : public Sink, public std::enable_shared_from_this<GenerationCall> {
 public:
  // `server` outlives the call; `rpc` lives until the reactor is done. `method` is a literal,
  // "package.Service/Method".
  GenerationCall(const CallContext& server, grpc::CallbackServerContext* rpc,
                 absl::string_view method);
  ~GenerationCall() override = default;

  // Parses, checks and submits the request, or ends the call with what is wrong with it.
  void Begin(const grpc::ByteBuffer& request);
  // The same for a request that came as another message. `read` tells what was wrong with that one;
  // `request` then has as much of it as there was. `timeout` ends it as a deadline does.
  void Begin(hanmo::v1::GenerateRequest request, absl::Status read,
             absl::Duration timeout = absl::InfiniteDuration());

  // Ends the request within one step. Thread-safe; does nothing once it has ended.
  void Cancel(const absl::Status& reason);
  // The client is gone, by its own will or at its deadline: likewise.
  void ClientLeft();
  // Whether either has been called.
  bool cancelled() const { return cancelled_; }

  // --- Sink; see there. ---
  void OnQueued(uint32_t position, absl::Duration wait) override {}
  void OnStep(uint32_t index, uint32_t step, uint32_t steps) override;
  bool OnTokens(uint32_t index, absl::Span<const Token> tokens) final;
  void OnPreview(uint32_t index, uint32_t step, Pixels pixels) override {}
  void OnPicture(uint32_t index, Pixels pixels, std::optional<float> score) final;
  void OnSampleEnd(uint32_t index, SampleEnd end, uint32_t stop_id) final;
  void OnDone(const absl::Status& status, const Usage& usage) final;
  bool full() const override { return false; }

 protected:
  // The request has an id; called in Begin.
  virtual void Identified(const std::string& request_id) {}
  // New text of a sample with the tokens it came from; either may be empty.
  virtual void TextGrew(uint32_t index, const std::string& text, absl::Span<const Token> tokens) {}
  // A picture is painted, and is one of those wanted: output `place` of the response. Called on the
  // media pool, before PictureReady.
  virtual void PixelsReady(uint32_t place, const Pixels& pixels) {}
  // Whether pictures are to be encoded at all; PictureReady then gets an empty file.
  virtual bool wants_files() const { return true; }
  // A picture is encoded: `output` has its fields and `file` its bytes. Called on the media pool.
  virtual void PictureReady(hanmo::v1::Output* output, std::string file) = 0;
  // Once and last: the response is complete when `status` is OK.
  virtual void Send(const absl::Status& status) = 0;

  // Whether an event tells of this step: of many small ones not all do.
  bool IsTold(uint32_t step) const { return step % plan_.steps_per_event == 0; }
  // Tells the request's id and trace to the client; to be called before anything is sent.
  void TellIds(const absl::Status& status);
  // The sink has room again.
  void Wake();
  // To be called by the reactor when gRPC is done with the call.
  void Close();

  // Runs `task` with the encoded JPEG of a preview on the media pool; drops it when the pool is
  // full.
  void EncodePreview(Pixels pixels, std::function<void(std::string)> task);
  void PreviewDropped();

  const CallContext& server() const { return server_; }
  const GenerationPlan& plan() const { return plan_; }
  hanmo::v1::GenerateResponse& response() { return response_; }
  grpc::CallbackServerContext* rpc() const { return rpc_; }

 private:
  // No request id of the batcher.
  static constexpr RequestId kNone = UINT64_MAX;

  void DecodePictureLater();
  void Tokenize();
  void Submit();
  absl::Status PrepareOutputs();
  // Makes the best pictures the outputs of the response.
  void EncodeBest();
  // For output `place`; the weight of `pixels` is kept in the media pool already.
  void EncodeLater(uint32_t place, Pixels pixels);
  void EncodePictureAt(uint32_t place, const Pixels& pixels);
  void NoteFirstOutput();
  void NoteFirstPreview();
  void Fail(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_);
  // One of the parties that complete the call (the batcher, each picture) is done.
  void Release();
  void Complete();
  void FillTimings();
  void BeginSpan();
  void EndSpan() ABSL_LOCKS_EXCLUDED(mu_);
  std::string trace_id() const;

  const CallContext& server_;
  grpc::CallbackServerContext* const rpc_;
  const absl::Time arrival_;  // steady
  const absl::string_view method_;

  // Written in Begin, then constant.
  hanmo::v1::GenerateRequest proto_;
  GenerationPlan plan_;
  absl::Time timeout_ = absl::InfiniteFuture();  // steady

  // The batcher's thread, then whoever completes the call. Pictures write to their own output.
  hanmo::v1::GenerateResponse response_;
  std::vector<TextAssembler> texts_;  // by sample
  std::optional<BestPictures> best_;  // where not all pictures are wanted
  absl::Time first_output_ = absl::InfiniteFuture();
  Usage usage_;
  // For the span: when the last of each was there. Steady; written where the events come.
  absl::Time tokenized_ = absl::InfinitePast();
  absl::Time last_token_ = absl::InfinitePast();
  absl::Time last_step_ = absl::InfinitePast();
  absl::Time painted_ = absl::InfinitePast();

  std::atomic<RequestId> id_{kNone};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> previewed_{false};
  std::atomic<bool> woken_{false};
  std::atomic<uint32_t> parties_{1};
  absl::Time completed_;  // steady
  bool registered_ = false;
  bool submitted_ = false;

  absl::Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);  // the first fault
  // Of the pictures' encoding.
  absl::Time encoding_ ABSL_GUARDED_BY(mu_) = absl::InfiniteFuture();
  absl::Time encoded_ ABSL_GUARDED_BY(mu_) = absl::InfinitePast();

  std::unique_ptr<RequestSpan> span_;  // null: nothing is traced
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_GENERATION_CALL_H_
