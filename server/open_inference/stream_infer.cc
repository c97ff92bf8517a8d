#include "server/open_inference/stream_infer.h"

#include <algorithm>
#include <utility>

#include "server/rpc/grpc_status.h"
#include "server/rpc/wire_message.h"

namespace hanmo {
namespace {

bool HasErrorHeader(const grpc::CallbackServerContext& rpc) {
  const auto header = rpc.client_metadata().find("triton_grpc_error");
  return header != rpc.client_metadata().end() && header->second == "true";
}

}  // namespace

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* StreamInfer::Start(
    const CallContext& server, grpc::CallbackServerContext* rpc, InferStreams* streams) {
  auto stream = std::make_shared<StreamInfer>(server, rpc, streams);
  streams->Add(stream);
  stream->Advance();
  return stream.get();
}

StreamInfer::StreamInfer(const CallContext& server, grpc::CallbackServerContext* rpc,
                         InferStreams* streams)
    : server_(server), rpc_(rpc), streams_(streams), errors_end_it_(HasErrorHeader(*rpc)) {}

void StreamInfer::EndWith(const absl::Status& status) {
  {
    absl::MutexLock lock(&mu_);
    no_more_reads_ = true;
    if (end_status_.ok()) end_status_ = status;
  }
  Advance();
}

void StreamInfer::OnReadDone(bool ok) {
  grpc::ByteBuffer request;
  request.Swap(&reading_bytes_);  // before the next read
  std::shared_ptr<InferCall> call;
  {
    absl::MutexLock lock(&mu_);
    reading_ = false;
    if (!ok) no_more_reads_ = true;
    if (!no_more_reads_) {
      call = std::make_shared<InferCall>(server_, rpc_, shared_from_this(), /*streams=*/true);
      calls_.push_back(call);
    }
  }
  if (call != nullptr) Run(call, request);
  Advance();
}

void StreamInfer::Run(const std::shared_ptr<InferCall>& call, const grpc::ByteBuffer& request) {
  call->Begin(request);
  bool left = false;
  {
    absl::MutexLock lock(&mu_);
    left = broken_ || !end_status_.ok();
  }
  // Whoever ended the stream meanwhile has not found its prompts.
  if (left) call->ClientLeft();
}

void StreamInfer::Respond(inference::ModelInferResponse response) {
  Waiting waiting;
  *waiting.response.mutable_infer_response() = std::move(response);
  Push(std::move(waiting));
}

void StreamInfer::End(const std::shared_ptr<InferCall>& call, const absl::Status& status,
                      inference::ModelInferResponse response) {
  CallList others;
  if (!status.ok() && errors_end_it_) {
    absl::MutexLock lock(&mu_);
    if (end_status_.ok()) end_status_ = status;
    no_more_reads_ = true;
    others = calls_;
  }
  for (const auto& other : others) {
    other->Cancel(absl::CancelledError("another request failed and ended the stream"));
  }
  Waiting waiting;
  waiting.ends = call;
  if (!status.ok()) {
    // A client knows an error by its text.
    waiting.response.set_error_message(status.message().empty()
                                           ? absl::StatusCodeToString(status.code())
                                           : std::string(status.message()));
  }
  *waiting.response.mutable_infer_response() = std::move(response);
  Push(std::move(waiting));
}

void StreamInfer::Push(Waiting waiting) {
  std::shared_ptr<InferCall> ended;
  {
    absl::MutexLock lock(&mu_);
    const bool silent = errors_end_it_ && !end_status_.ok();
    if (broken_ || silent) {
      ended = std::move(waiting.ends);
      if (ended != nullptr) Remove(ended.get());
    } else {
      waiting_bytes_ += waiting.response.ByteSizeLong();
      waiting_.push_back(std::move(waiting));
      if (waiting_.size() >= kMaxResponses || waiting_bytes_ >= kMaxBytes) full_ = true;
    }
  }
  if (ended != nullptr) ended->Close();
  Advance();
}

void StreamInfer::Advance() {
  while (AdvanceOnce()) {
  }
}

bool StreamInfer::AdvanceOnce() {
  Waiting next;
  CallList woken;
  absl::Status end;
  bool read = false;
  bool write = false;
  bool finish = false;
  {
    absl::MutexLock lock(&mu_);
    if (finished_) return false;
    if (!writing_ && !waiting_.empty()) {
      write = writing_ = true;
      next = std::move(waiting_.front());
      waiting_.pop_front();
      writing_end_ = next.ends;
      if (waiting_.empty()) {
        waiting_bytes_ = 0;
        if (full_.exchange(false)) woken = calls_;
      }
    }
    if (!reading_ && !no_more_reads_ && !full_ && calls_.size() < kMaxCalls) {
      read = reading_ = starting_read_ = true;
    }
    if (!writing_ && !starting_read_ && no_more_reads_ && calls_.empty()) {
      finish = finished_ = true;
      end = end_status_;
    }
  }
  if (write) {
    writing_bytes_ = SerializeMessage(next.response);
    StartWrite(&writing_bytes_);
  }
  for (const auto& call : woken) call->Wake();
  if (finish) Finish(ToGrpcStatus(end, rpc_));
  if (!read) return false;
  StartRead(&reading_bytes_);
  absl::MutexLock lock(&mu_);
  starting_read_ = false;
  return true;
}

void StreamInfer::OnWriteDone(bool ok) {
  CallList ended;
  CallList left;
  {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (writing_end_ != nullptr) {
      Remove(writing_end_.get());
      ended.push_back(std::exchange(writing_end_, nullptr));
    }
    if (!ok) {
      for (auto& call : Break()) ended.push_back(std::move(call));
      left = calls_;
    }
  }
  for (const auto& call : ended) call->Close();
  for (const auto& call : left) call->ClientLeft();
  Advance();
}

void StreamInfer::OnCancel() {
  CallList ended;
  CallList left;
  {
    absl::MutexLock lock(&mu_);
    ended = Break();
    left = calls_;
  }
  for (const auto& call : ended) call->Close();
  for (const auto& call : left) call->ClientLeft();
  Advance();
}

StreamInfer::CallList StreamInfer::Break() {
  CallList ended;
  broken_ = true;
  no_more_reads_ = true;
  full_ = false;
  for (Waiting& waiting : waiting_) {
    if (waiting.ends == nullptr) continue;
    Remove(waiting.ends.get());
    ended.push_back(std::move(waiting.ends));
  }
  waiting_.clear();
  waiting_bytes_ = 0;
  if (end_status_.ok()) end_status_ = absl::CancelledError("cancelled by the client");
  return ended;
}

void StreamInfer::Remove(const InferCall* call) {
  std::erase_if(calls_, [call](const auto& entry) { return entry.get() == call; });
}

void StreamInfer::OnDone() { streams_->Remove(this); }

void InferStreams::Add(const std::shared_ptr<StreamInfer>& stream) {
  bool ended = false;
  {
    absl::MutexLock lock(&mu_);
    streams_.push_back(stream);
    ended = ended_;
  }
  if (ended) stream->EndWith(absl::UnavailableError("the server is shutting down"));
}

void InferStreams::Remove(const StreamInfer* stream) {
  std::shared_ptr<StreamInfer> last;  // let go outside of the lock
  absl::MutexLock lock(&mu_);
  const auto found = std::find_if(streams_.begin(), streams_.end(),
                                  [stream](const auto& entry) { return entry.get() == stream; });
  if (found == streams_.end()) return;
  last = std::move(*found);
  streams_.erase(found);
}

void InferStreams::End() {
  std::vector<std::shared_ptr<StreamInfer>> streams;
  {
    absl::MutexLock lock(&mu_);
    ended_ = true;
    streams = streams_;
  }
  for (const auto& stream : streams) {
    stream->EndWith(absl::UnavailableError("the server is shutting down"));
  }
}

}  // namespace hanmo
