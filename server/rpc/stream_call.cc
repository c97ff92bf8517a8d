#include "server/rpc/stream_call.h"

#include <algorithm>
#include <utility>

#include "server/batcher/clock.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/proto_duration.h"
#include "server/rpc/token_fields.h"
#include "server/rpc/wire_message.h"

namespace hanmo {
grpc::ServerWriteReactor<grpc::ByteBuffer>* StreamCall::Start(const CallContext& server,
                                                              grpc::CallbackServerContext* rpc,
                                                              const grpc::ByteBuffer& request) {
  auto call = std::make_shared<StreamCall>(server, rpc);
  call->self_ = call;
  call->Begin(request);
  return call.get();
}

void StreamCall::OnQueued(uint32_t position, absl::Duration wait) {
  Event event;
  event.mutable_queued()->set_request_id(plan().request_id);
  event.mutable_queued()->set_position(position);
  if (wait > absl::ZeroDuration()) {
    SetDuration(wait, event.mutable_queued()->mutable_expected_wait());
  }
  Push(std::move(event));
}

void StreamCall::OnStep(uint32_t index, uint32_t step, uint32_t steps) {
  GenerationCall::OnStep(index, step, steps);
  if (!IsTold(step)) return;
  Event event;
  event.mutable_step()->set_index(index);
  event.mutable_step()->set_step(step);
  event.mutable_step()->set_steps(steps);
  Push(std::move(event));
}

void StreamCall::OnPreview(uint32_t index, uint32_t step, Pixels pixels) {
  if (!MayPreview()) return PreviewDropped();
  EncodePreview(std::move(pixels), [this, index, step](std::string file) {
    Event event;
    event.mutable_preview()->set_index(index);
    event.mutable_preview()->set_step(step);
    event.mutable_preview()->set_data(std::move(file));
    PushPreview(std::move(event));
  });
}

bool StreamCall::MayPreview() {
  const auto rate = static_cast<double>(server().preview_bytes_per_second);
  const absl::Time now = SteadyNow();
  absl::MutexLock lock(&mu_);
  const double seconds = absl::ToDoubleSeconds(now - previewed_);  // infinite at first
  preview_bytes_ = std::min(rate, preview_bytes_ + rate * std::min(1e9, seconds));
  previewed_ = now;
  return preview_bytes_ > 0;
}

void StreamCall::PushPreview(Event event) {
  bool dropped = false;
  {
    absl::MutexLock lock(&mu_);
    if (broken_) return;
    preview_bytes_ -= static_cast<double>(event.preview().data().size());
    const auto older = std::find_if(events_.begin(), events_.end(), [&](const Event& waiting) {
      return waiting.has_preview() && waiting.preview().index() == event.preview().index();
    });
    dropped = older != events_.end();
    if (dropped) events_.erase(older);
    events_.push_back(std::move(event));
  }
  if (dropped) PreviewDropped();
  Advance();
}

void StreamCall::TextGrew(uint32_t index, const std::string& text, absl::Span<const Token> tokens) {
  Event event;
  event.mutable_text()->set_index(index);
  event.mutable_text()->set_text(text);
  AddTokens(tokens, plan().logprobs, event.mutable_text());
  Push(std::move(event));
}

void StreamCall::PictureReady(hanmo::v1::Output* output, std::string file) {
  for (size_t offset = 0; offset < file.size(); offset += kChunkBytes) {
    Event event;
    hanmo::v1::PictureChunk* chunk = event.mutable_picture();
    chunk->set_index(output->index());
    chunk->set_format(output->picture().format());
    chunk->set_width(output->picture().width());
    chunk->set_height(output->picture().height());
    chunk->set_offset(offset);
    chunk->set_total_bytes(file.size());
    chunk->set_data(file.substr(offset, kChunkBytes));
    Push(std::move(event));
  }
}

void StreamCall::Send(const absl::Status& status) {
  if (status.ok()) {
    Event event;
    *event.mutable_final() = std::move(response());
    Push(std::move(event));
  }
  {
    absl::MutexLock lock(&mu_);
    ended_ = true;
    end_status_ = status;
  }
  Advance();
}

bool StreamCall::Merge(const Event& event) {
  if (events_.empty()) return false;
  Event& last = events_.back();
  if (event.has_queued() && last.has_queued()) {
    *last.mutable_queued() = event.queued();
    return true;
  }
  if (event.has_step() && last.has_step() && event.step().index() == last.step().index()) {
    *last.mutable_step() = event.step();
    return true;
  }
  if (event.has_text() && last.has_text() && event.text().index() == last.text().index()) {
    last.mutable_text()->mutable_text()->append(event.text().text());
    last.mutable_text()->mutable_token_ids()->MergeFrom(event.text().token_ids());
    last.mutable_text()->mutable_logprobs()->MergeFrom(event.text().logprobs());
    return true;
  }
  return false;
}

void StreamCall::Push(Event event) {
  {
    absl::MutexLock lock(&mu_);
    if (broken_) return;
    ++waiting_;
    waiting_bytes_ += event.ByteSizeLong();
    if (!Merge(event)) events_.push_back(std::move(event));
    if (waiting_ >= kMaxEvents || waiting_bytes_ >= kMaxBytes) full_ = true;
  }
  Advance();
}

void StreamCall::Advance() {
  Event next;
  absl::Status end;
  bool write = false;
  bool first = false;
  bool woken = false;
  {
    absl::MutexLock lock(&mu_);
    if (writing_) return;
    first = !began_;
    if (!events_.empty() && !broken_) {
      write = true;
      writing_ = true;
      began_ = true;
      next = std::move(events_.front());
      events_.pop_front();
      if (events_.empty()) {
        waiting_ = 0;
        waiting_bytes_ = 0;
        woken = full_.exchange(false);
      }
    } else if (ended_) {
      writing_ = true;  // nothing may follow the status
      end = end_status_;
    } else {
      return;
    }
  }
  if (first) TellIds(end);
  if (write) {
    writing_bytes_ = SerializeMessage(next);
    StartWrite(&writing_bytes_);
    if (woken) Wake();
  } else {
    Finish(ToGrpcStatus(end, rpc()));
  }
}

void StreamCall::OnWriteDone(bool ok) {
  {
    absl::MutexLock lock(&mu_);
    writing_ = false;
    if (!ok) {
      broken_ = true;
      events_.clear();
      full_ = false;
    }
  }
  if (!ok) ClientLeft();
  Advance();
}

void StreamCall::OnDone() {
  Close();
  const std::shared_ptr<StreamCall> last = std::move(self_);
}

}  // namespace hanmo
