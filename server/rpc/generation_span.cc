// What the trace tells of a GenerationCall.
#include "absl/status/status.h"
#include "server/batcher/clock.h"
#include "server/rpc/generation_call.h"

namespace hanmo {
namespace {

absl::string_view Header(const grpc::CallbackServerContext& rpc, const char* name) {
  const auto found = rpc.client_metadata().find(name);
  if (found == rpc.client_metadata().end()) return {};
  return {found->second.data(), found->second.size()};
}

}  // namespace

void GenerationCall::BeginSpan() {
  span_ = server_.tracer->Begin(method_, Header(*rpc_, "traceparent"), Header(*rpc_, "tracestate"),
                                arrival_);
}

std::string GenerationCall::trace_id() const {
  return std::string(span_ != nullptr ? TraceIdOf(span_->traceparent())
                                      : TraceIdOf(Header(*rpc_, "traceparent")));
}

void GenerationCall::EndSpan() {
  absl::Status status;
  absl::Time encoding, encoded;
  {
    absl::MutexLock lock(&mu_);
    status = status_;
    encoding = encoding_;
    encoded = encoded_;
  }
  if (span_->recording() && submitted_) {
    const absl::Time started = arrival_ + usage_.queue_time;
    const auto phase = [&](absl::string_view name, absl::Time start, absl::Time end,
                           std::initializer_list<TraceAttribute> attributes = {}) {
      // What did not happen has no time.
      if (start < absl::InfiniteFuture() && start > absl::InfinitePast() &&
          end > absl::InfinitePast()) {
        span_->AddPhase(name, start, end, attributes);
      }
    };
    phase("tokenize", arrival_, tokenized_);
    phase("queue", tokenized_, started);
    if (!plan_.paints) {
      const bool wrote = last_token_ > absl::InfinitePast();
      phase("prefill", started, wrote ? first_output_ : absl::InfinitePast(),
            {{"hanmo.prompt_tokens", int64_t{usage_.prompt_tokens}},
             {"hanmo.cached_prompt_tokens", int64_t{usage_.cached_prompt_tokens}}});
      phase("decode", first_output_, last_token_,
            {{"hanmo.completion_tokens", int64_t{usage_.completion_tokens}}});
    } else {
      phase(plan_.model->spec.kind == ModelKind::kPictureTokens ? "paint" : "denoise", started,
            last_step_,
            {{"hanmo.steps", int64_t{usage_.steps}},
             {"hanmo.steps_redone", int64_t{usage_.steps_redone}}});
      phase("vae_decode", last_step_, painted_);
      phase("picture_encode", encoding, encoded);
    }
    phase("send", completed_, SteadyNow());
  }
  const int64_t code = static_cast<int64_t>(status.code());
  span_->End(SteadyNow(), status,
             {{"rpc.grpc.status_code", code},
              {"hanmo.request_id", plan_.request_id},
              {"gen_ai.request.model", plan_.model != nullptr ? plan_.model->spec.name : ""},
              {"gen_ai.usage.input_tokens", int64_t{usage_.prompt_tokens}},
              {"gen_ai.usage.output_tokens", int64_t{usage_.completion_tokens}},
              {"hanmo.pictures", int64_t{usage_.pictures}},
              {"hanmo.device_seconds", absl::ToDoubleSeconds(usage_.device_time)},
              {"hanmo.worker_deaths", int64_t{usage_.deaths}}});
}

}  // namespace hanmo
