#include "server/rpc/generation_call.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/batcher/clock.h"
#include "server/rpc/grpc_status.h"
#include "server/rpc/proto_duration.h"
#include "server/rpc/token_fields.h"
#include "server/rpc/violations.h"
#include "server/rpc/wire_message.h"

namespace hanmo {
namespace {

using hanmo::v1::FinishReason;

// Tokenizing this much takes about as long as handing it to another thread.
constexpr size_t kInlineTextBytes = 2048;

// What ends so shortly before its deadline was ended by it.
constexpr absl::Duration kDeadlineSlack = absl::Milliseconds(5);

absl::Time SteadyDeadline(const grpc::ServerContextBase& rpc, absl::Time now) {
  const auto deadline = rpc.deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) return absl::InfiniteFuture();
  return now + absl::FromChrono(deadline - std::chrono::system_clock::now());
}

// Only the worker can tell some limits (how many steps a sampler's schedule has, say); it begins
// such a message with the job's field. Returns the error with the field's path in the request.
absl::Status WithFieldPath(const absl::Status& status, bool paints) {
  if (!absl::IsInvalidArgument(status) || status.GetPayload(kBadRequestUrl).has_value()) {
    return status;
  }
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(status.message(), absl::MaxSplits(": ", 1));
  if (parts.second.empty()) return status;
  const absl::string_view prefix = parts.first == "prompt" ? "" : paints ? "picture." : "text.";
  return FieldError(absl::StrCat(prefix, parts.first), parts.second);
}

}  // namespace

GenerationCall::GenerationCall(const CallContext& server, grpc::CallbackServerContext* rpc,
                               absl::string_view method)
    : server_(server), rpc_(rpc), arrival_(SteadyNow()), method_(method) {
  server_.calls->Begin();
  if (server_.tracer != nullptr) BeginSpan();
}

void GenerationCall::Begin(const grpc::ByteBuffer& request) {
  // A client that leaves early enough takes its message along: that is no bad request.
  hanmo::v1::GenerateRequest proto;
  absl::Status status = request.Valid()
                            ? ParseMessage(request, &proto)
                            : absl::CancelledError("the call ended before its request was there");
  Begin(std::move(proto), std::move(status));
}

void GenerationCall::Begin(hanmo::v1::GenerateRequest request, absl::Status status,
                           absl::Duration timeout) {
  proto_ = std::move(request);
  timeout_ = arrival_ + timeout;
  if (status.ok()) {
    auto plan = PlanFromProto(proto_, *server_.models);
    status = plan.status();
    if (plan.ok()) plan_ = *std::move(plan);
  }
  if (!status.ok()) {
    // For the metrics and the log, as far as the request tells them.
    plan_.model = server_.models->Find(proto_.model(), proto_.version());
    if (IsRequestId(proto_.request_id())) plan_.request_id = proto_.request_id();
  }
  if (!plan_.request_id.empty()) Identified(plan_.request_id);
  if (!status.ok()) return OnDone(status, {});

  server_.calls->Register(plan_.request_id, shared_from_this());
  registered_ = true;
  if (plan_.caption) return DecodePictureLater();
  const size_t bytes = PromptBytes(proto_);
  if (bytes <= kInlineTextBytes && plan_.guide_field.empty()) return Tokenize();
  auto self = shared_from_this();
  if (!server_.tokenize_pool->Submit(bytes, [self] { self->Tokenize(); })) {
    OnDone(absl::ResourceExhaustedError("too many long prompts are waiting to be tokenized"), {});
  }
}

void GenerationCall::TellIds(const absl::Status& status) {
  TellClient("x-request-id", plan_.request_id, status, rpc_);
  if (span_ != nullptr) TellClient("traceresponse", span_->traceparent(), status, rpc_);
}

void GenerationCall::Tokenize() {
  const absl::Time start = SteadyNow();
  absl::Status status = SetPrompts(proto_, &plan_);
  if (!proto_.has_token_ids()) {
    server_.figures->ObservePhase(plan_.model->spec.id, FrontPhase::kTokenize, SteadyNow() - start);
  }
  if (status.ok()) status = CheckGuide(plan_);
  if (status.ok()) status = PrepareOutputs();
  tokenized_ = SteadyNow();
  if (!status.ok()) return OnDone(status, {});
  Submit();
}

absl::Status GenerationCall::PrepareOutputs() {
  response_.set_request_id(plan_.request_id);
  response_.set_model(plan_.model->spec.name);
  response_.set_version(plan_.model->spec.version);
  const auto& samples = plan_.request.samples;
  if (plan_.chosen > 0) best_.emplace(plan_.chosen, server_.media_pool);
  for (uint32_t index = 0; index < samples.size(); ++index) {
    hanmo::v1::Output* output = response_.add_outputs();
    output->set_index(index);
    if (const auto* job = std::get_if<TextJob>(&samples[index]); job != nullptr && plan_.paints) {
      output->mutable_picture()->set_seed(job->sampling.seed);
      output->mutable_picture()->set_steps(job->max_tokens);
      output->mutable_picture()->set_format(plan_.format);
    } else if (job != nullptr) {
      output->mutable_text()->set_seed(job->sampling.seed);
      auto text =
          TextAssembler::Create({plan_.model->tokenizer.get(), plan_.stop, plan_.include_stop,
                                 job->stop_token_ids, plan_.caption, plan_.begun});
      if (!text.ok()) return FieldError("text.stop", text.status().message());
      texts_.push_back(*std::move(text));
    } else {
      const auto& picture = std::get<PictureJob>(samples[index]);
      output->mutable_picture()->set_seed(picture.seed);
      output->mutable_picture()->set_steps(picture.steps);
      output->mutable_picture()->set_sampler(picture.sampler);
      output->mutable_picture()->set_format(plan_.format);
    }
  }
  return absl::OkStatus();
}

void GenerationCall::Submit() {
  plan_.request.arrival = arrival_;
  plan_.request.deadline = std::min(SteadyDeadline(*rpc_, SteadyNow()), timeout_);
  submitted_ = true;
  auto self = shared_from_this();  // the call may be over before Submit returns
  const RequestId id = server_.batcher->Submit(std::move(plan_.request), self);
  id_ = id;
  // What came while there was no id yet.
  if (cancelled_) server_.batcher->Cancel(id);
  if (woken_) server_.batcher->Wake(id);
}

void GenerationCall::OnStep(uint32_t, uint32_t, uint32_t) {
  if (span_ != nullptr) last_step_ = SteadyNow();
}

bool GenerationCall::OnTokens(uint32_t index, absl::Span<const Token> tokens) {
  NoteFirstOutput();
  if (span_ != nullptr) last_token_ = SteadyNow();
  TextAssembler& assembler = texts_[index];
  auto piece = assembler.Append(tokens);
  if (!piece.ok()) {
    Fail(piece.status());
    return false;
  }
  tokens = tokens.first(piece->tokens);
  hanmo::v1::Text* text = response_.mutable_outputs(static_cast<int>(index))->mutable_text();
  text->mutable_text()->append(piece->text);
  AddTokens(tokens, plan_.logprobs, text);
  TextGrew(index, piece->text, tokens);
  return assembler.stopped_by() == nullptr;
}

void GenerationCall::OnSampleEnd(uint32_t index, SampleEnd end, uint32_t stop_id) {
  if (end == SampleEnd::kPainted) return;
  auto rest = texts_[index].Finish();
  if (!rest.ok()) return Fail(rest.status());
  hanmo::v1::Text* text = response_.mutable_outputs(static_cast<int>(index))->mutable_text();
  text->mutable_text()->append(*rest);
  const auto& own = plan_.stop_token_ids;
  if (const std::string* stop = texts_[index].stopped_by(); stop != nullptr) {
    text->set_finish_reason(FinishReason::FINISH_REASON_STOP);
    text->set_stop_reason(*stop);
  } else if (end == SampleEnd::kLength) {
    text->set_finish_reason(FinishReason::FINISH_REASON_LENGTH);
  } else if (std::find(own.begin(), own.end(), stop_id) != own.end()) {
    text->set_finish_reason(FinishReason::FINISH_REASON_STOP);
    text->set_stop_reason(absl::StrCat(stop_id));
  } else {
    text->set_finish_reason(FinishReason::FINISH_REASON_EOS);
  }
  if (!rest->empty()) TextGrew(index, *rest, {});
}

void GenerationCall::OnDone(const absl::Status& status, const Usage& usage) {
  usage_ = usage;
  usage_.prompt_tokens -= std::min(plan_.padding, usage_.prompt_tokens);
  usage_.cached_prompt_tokens = std::min(usage_.cached_prompt_tokens, usage_.prompt_tokens);
  if (!status.ok()) {
    Fail(submitted_ ? WithFieldPath(status, plan_.paints) : status);
  } else if (best_.has_value()) {
    EncodeBest();
  }
  Release();
}

void GenerationCall::NoteFirstOutput() {
  if (first_output_ == absl::InfiniteFuture()) first_output_ = SteadyNow();
}

void GenerationCall::Fail(const absl::Status& status) {
  absl::MutexLock lock(&mu_);
  if (status_.ok()) status_ = status;
}

void GenerationCall::Release() {
  if (parties_.fetch_sub(1, std::memory_order_acq_rel) == 1) Complete();
}

void GenerationCall::Complete() {
  completed_ = SteadyNow();
  if (registered_) server_.calls->Unregister(plan_.request_id, this);
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    status = status_;
  }
  if (status.ok()) FillTimings();
  const std::optional<ModelId> model =
      plan_.model != nullptr ? std::optional(plan_.model->spec.id) : std::nullopt;
  server_.figures->RequestDone(model, status.code(), completed_ - arrival_);
  if (registered_) {
    server_.figures->TenantDone(proto_.tenant(), status.code(), usage_.device_time);
  }
  if (!submitted_ && !status.ok() && !absl::IsCancelled(status)) server_.figures->RefusedInvalid();
  if (server_.log->enabled(LogLevel::kInfo)) {
    const std::string code = absl::StatusCodeToString(status.code());
    server_.log->Write(LogLevel::kInfo, "request",
                       {{"request_id", plan_.request_id},
                        {"trace_id", trace_id()},
                        {"model", model ? plan_.model->spec.name : absl::string_view()},
                        {"code", code},
                        {"seconds", absl::ToDoubleSeconds(completed_ - arrival_)},
                        {"queue_seconds", absl::ToDoubleSeconds(usage_.queue_time)},
                        {"prompt_tokens", int64_t{usage_.prompt_tokens}},
                        {"completion_tokens", int64_t{usage_.completion_tokens}},
                        {"steps", int64_t{usage_.steps}},
                        {"pictures", int64_t{usage_.pictures}}});
  }
  Send(status);
}

void GenerationCall::FillTimings() {
  if (usage_.granted_steps > 0) {
    for (hanmo::v1::Output& output : *response_.mutable_outputs()) {
      output.mutable_picture()->set_steps(usage_.granted_steps);
    }
  }
  hanmo::v1::Usage* usage = response_.mutable_usage();
  usage->set_prompt_tokens(usage_.prompt_tokens);
  usage->set_cached_prompt_tokens(usage_.cached_prompt_tokens);
  usage->set_completion_tokens(usage_.completion_tokens);
  usage->set_steps(usage_.steps);
  usage->set_steps_redone(usage_.steps_redone);
  usage->set_pictures(usage_.pictures);
  SetDuration(usage_.device_time, usage->mutable_device_time());
  usage->set_peak_bytes(usage_.peak_bytes);
  hanmo::v1::Timings* timings = response_.mutable_timings();
  SetDuration(usage_.queue_time, timings->mutable_queue());
  SetDuration(std::min(first_output_, completed_) - arrival_, timings->mutable_first_output());
  SetDuration(completed_ - arrival_, timings->mutable_total());
}

void GenerationCall::ClientLeft() {
  // The deadline ends a call by a cancellation, too, and often the client's comes first: on the way
  // here timeouts are rounded up, by a hundredth at most.
  const auto deadline = rpc_->deadline();
  if (deadline == std::chrono::system_clock::time_point::max()) {
    return Cancel(absl::CancelledError("cancelled by the client"));
  }
  const absl::Duration left = absl::FromChrono(deadline - std::chrono::system_clock::now());
  const absl::Duration allowed = left + (SteadyNow() - arrival_);
  Cancel(left <= allowed / 100 + kDeadlineSlack ? absl::DeadlineExceededError("the deadline passed")
                                                : absl::CancelledError("cancelled by the client"));
}

void GenerationCall::Cancel(const absl::Status& reason) {
  cancelled_ = true;
  if (const RequestId id = id_; id != kNone) server_.batcher->Cancel(id, reason);
}

void GenerationCall::Wake() {
  woken_ = true;
  if (const RequestId id = id_; id != kNone) server_.batcher->Wake(id);
}

void GenerationCall::Close() {
  if (submitted_) {
    server_.figures->ObservePhase(plan_.model->spec.id, FrontPhase::kSend,
                                  SteadyNow() - completed_);
  }
  if (span_ != nullptr) EndSpan();
  server_.calls->End();
}

}  // namespace hanmo
