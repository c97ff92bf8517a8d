#include <algorithm>
#include <string>
#include <utility>
#include <variant>

#include "server/worker_link/wire.h"

namespace hanmo {
namespace {

template <typename Repeated>
void Assign(const std::vector<uint32_t>& in, Repeated* out) {
  out->Assign(in.begin(), in.end());
}

// Rounded up, as zero would mean no budget.
uint32_t BudgetToWire(absl::Duration budget) {
  const absl::Duration bounded = std::clamp(budget, absl::ZeroDuration(), absl::Hours(1));
  return static_cast<uint32_t>(
      absl::ToInt64Microseconds(absl::Ceil(bounded, absl::Microseconds(1))));
}

void SamplingToWire(const TokenSampling& in, wire::TokenSampling* out) {
  out->set_temperature(in.temperature);
  out->set_top_k(in.top_k);
  out->set_top_p(in.top_p);
  out->set_min_p(in.min_p);
  out->set_repetition_penalty(in.repetition_penalty);
  out->set_presence_penalty(in.presence_penalty);
  out->set_frequency_penalty(in.frequency_penalty);
  out->mutable_logit_bias()->insert(in.logit_bias.begin(), in.logit_bias.end());
  out->set_seed(in.seed);
  out->set_min_tokens(in.min_tokens);
  if (in.logprobs.has_value()) out->set_logprobs(*in.logprobs);
  Assign(in.eos_token_ids, out->mutable_eos_token_ids());
}

void JobToWire(const TextJob& job, const Resume& resume, wire::Begin* begin) {
  wire::TextSample* out = begin->mutable_text();
  Assign(job.prompt, out->mutable_prompt());
  Assign(resume.emitted, out->mutable_emitted());
  SamplingToWire(job.sampling, out->mutable_sampling());
  Assign(job.stop_token_ids, out->mutable_stop_token_ids());
  out->set_max_tokens(job.max_tokens);
  out->set_cached_tokens(resume.cached_tokens);
  if (job.guide != nullptr) out->set_guide(*job.guide);
  out->set_source_tokens(job.source_tokens);
  if (job.picture.rgb != nullptr) {
    out->set_picture(*job.picture.rgb);
    out->set_picture_width(job.picture.width);
  }
  out->set_paint_width(job.paint_width);
  out->set_paint_height(job.paint_height);
  Assign(job.score_prompt, out->mutable_score_prompt());
}

void JobToWire(const PictureJob& job, const Resume& resume, wire::Begin* begin) {
  wire::PictureSample* out = begin->mutable_picture();
  Assign(job.prompt, out->mutable_prompt());
  Assign(job.negative_prompt, out->mutable_negative_prompt());
  out->set_width(job.width);
  out->set_height(job.height);
  out->set_sampler(job.sampler);
  out->set_steps(job.steps);
  out->set_guidance(job.guidance);
  out->set_seed(job.seed);
  out->set_save_point(resume.save_point);
  Assign(job.score_prompt, out->mutable_score_prompt());
}

void RowToWire(RowResult row, wire::RowResult* out) {
  out->set_sample(row.sample);
  if (!row.status.ok()) ToWire(row.status, out->mutable_status());
  for (const Token& token : row.tokens) {
    wire::Token* t = out->add_tokens();
    t->set_id(token.id);
    t->set_logprob(token.logprob);
    for (const TokenCandidate& candidate : token.top) {
      wire::TokenCandidate* c = t->add_top();
      c->set_id(candidate.id);
      c->set_logprob(candidate.logprob);
    }
  }
  out->set_skipped(row.skipped);
  out->set_drafted(row.drafted);
  out->set_steps_done(row.steps_done);
  out->set_steps_total(row.steps_total);
  for (const VariantChange& change : row.variants) {
    wire::VariantChange* c = out->add_variants();
    c->set_first_call(change.first_call);
    c->set_variant(change.variant);
  }
  out->set_picture(std::move(row.picture.rgb));
  out->set_picture_width(row.picture.width);
  if (row.score.has_value()) out->set_score(*row.score);
  out->set_preview(std::move(row.preview.rgb));
  out->set_preview_width(row.preview.width);
}

wire::StepKind KindToWire(StepKind kind) {
  switch (kind) {
    case StepKind::kTextEncode:
      return wire::STEP_KIND_TEXT_ENCODE;
    case StepKind::kDenoise:
      return wire::STEP_KIND_DENOISE;
    case StepKind::kVaeDecode:
      return wire::STEP_KIND_VAE_DECODE;
    case StepKind::kText:
      return wire::STEP_KIND_TEXT;
    case StepKind::kPictureEncode:
      return wire::STEP_KIND_PICTURE_ENCODE;
  }
  return wire::STEP_KIND_UNSPECIFIED;
}

}  // namespace

void ToWire(const absl::Status& status, wire::Status* out) {
  out->set_code(static_cast<int32_t>(status.code()));
  out->set_message(std::string(status.message()));
}

void ToWire(const WorkerHello& hello, wire::HelloReply* out) {
  out->set_protocol_version(kWorkerProtocolVersion);
  out->set_device(hello.device);
  out->set_device_name(hello.device_name);
  out->set_memory_bytes(hello.memory.total);
  out->set_memory_free_bytes(hello.memory.free);
  out->set_pid(hello.pid);
  out->set_build(hello.build);
}

void ToWire(const LoadCommand& load, wire::Load* out) {
  out->set_model(load.model);
  out->set_path(load.path);
  out->set_dtype(load.dtype);
  out->set_deterministic(load.deterministic);
  out->set_kv_bytes(load.kv_bytes);
  out->set_max_context_tokens(load.max_context_tokens);
  out->set_expert_bytes(load.expert_bytes);
}

void ToWire(ModelId model, const absl::StatusOr<LoadedModel>& loaded, wire::Loaded* out) {
  out->set_model(model);
  ToWire(loaded.status(), out->mutable_status());
  if (!loaded.ok()) return;
  out->set_architecture(loaded->architecture);
  out->set_dtype(loaded->dtype);
  out->set_weight_bytes(loaded->weight_bytes);
  out->set_load_seconds(loaded->load_seconds);
  if (loaded->context_tokens > 0) {
    wire::TextCapabilities* text = out->mutable_text();
    text->set_context_tokens(loaded->context_tokens);
    text->set_vocabulary_size(loaded->vocabulary_size);
    text->set_page_tokens(loaded->page_tokens);
    text->set_page_bytes(loaded->page_bytes);
    text->set_pages(loaded->pages);
  }
  if (loaded->latent_factor > 0) {
    wire::PictureCapabilities* picture = out->mutable_picture();
    picture->set_latent_factor(loaded->latent_factor);
    picture->set_latent_channels(loaded->latent_channels);
    picture->set_default_size(loaded->default_size);
    picture->set_prompt_tokens(loaded->prompt_tokens);
    picture->set_default_sampler(loaded->default_sampler);
    for (const std::string& sampler : loaded->samplers) picture->add_samplers(sampler);
    for (const LoadedExpert& expert : loaded->experts) {
      wire::Expert* e = picture->add_experts();
      e->set_name(expert.name);
      e->set_t_min(expert.t_min);
      e->set_t_max(expert.t_max);
    }
    picture->set_resident_experts(loaded->resident_experts);
    picture->set_has_reranker(loaded->has_reranker);
  }
}

void ToWire(const BeginCommand& begin, wire::Begin* out) {
  out->set_sample(begin.sample);
  out->set_model(begin.model);
  std::visit([&](const auto& job) { JobToWire(job, begin.resume, out); }, begin.job);
}

void ToWire(const Step& step, wire::Step* out) {
  out->set_step(step.id);
  out->set_model(step.model);
  out->set_kind(KindToWire(step.kind));
  for (const Row& row : step.rows) {
    wire::Row* r = out->add_rows();
    r->set_sample(row.sample);
    r->set_prefill_tokens(row.prefill_tokens);
    Assign(row.new_pages, r->mutable_new_pages());
    r->set_preview(row.preview);
    r->set_draft_tokens(row.draft_tokens);
  }
  out->set_budget_us(BudgetToWire(step.budget));
}

void ToWire(const ResumeCommand& resume, wire::Resume* out) {
  out->set_step(resume.step);
  out->set_budget_us(BudgetToWire(resume.budget));
}

void ToWire(StepResult result, wire::StepDone* out) {
  out->set_step(result.step);
  if (!result.status.ok()) ToWire(result.status, out->mutable_status());
  for (RowResult& row : result.rows) RowToWire(std::move(row), out->add_rows());
  out->set_device_seconds(absl::ToDoubleSeconds(result.device_time));
  out->set_idle_seconds(absl::ToDoubleSeconds(result.idle_time));
  out->set_memory_used_bytes(result.memory.used);
  out->set_memory_free_bytes(result.memory.free);
  out->set_peak_bytes(result.peak_bytes);
  out->set_weights_seconds(absl::ToDoubleSeconds(result.weights_time));
  out->set_suspended(result.suspended);
  out->set_already_done(result.already_done);
}

void ToWire(SavePoint save_point, wire::Saved* out) {
  out->set_sample(save_point.sample);
  out->set_steps_done(save_point.steps_done);
  out->set_save_point(std::move(save_point.bytes));
}

void ToWire(const std::vector<SampleHandle>& samples, wire::Save* out) {
  out->mutable_samples()->Assign(samples.begin(), samples.end());
}

void ToWire(const std::vector<SampleHandle>& samples, wire::Drop* out) {
  out->mutable_samples()->Assign(samples.begin(), samples.end());
}

}  // namespace hanmo
