#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/worker_link/wire.h"

namespace hanmo {
namespace {

template <typename Repeated>
std::vector<uint32_t> ToVector(const Repeated& in) {
  return std::vector<uint32_t>(in.begin(), in.end());
}

TokenSampling SamplingFromWire(const wire::TokenSampling& in) {
  TokenSampling out;
  out.temperature = in.temperature();
  out.top_k = in.top_k();
  out.top_p = in.top_p();
  out.min_p = in.min_p();
  out.repetition_penalty = in.repetition_penalty();
  out.presence_penalty = in.presence_penalty();
  out.frequency_penalty = in.frequency_penalty();
  out.logit_bias.insert(in.logit_bias().begin(), in.logit_bias().end());
  out.seed = in.seed();
  out.min_tokens = in.min_tokens();
  if (in.has_logprobs()) out.logprobs = in.logprobs();
  out.eos_token_ids = ToVector(in.eos_token_ids());
  return out;
}

PictureInput PictureFromWire(wire::TextSample& in) {
  PictureInput picture;
  if (in.picture().empty() || in.picture_width() == 0) return picture;
  picture.width = in.picture_width();
  picture.height = static_cast<uint32_t>(in.picture().size() / 3 / picture.width);
  picture.rgb = std::make_shared<const std::string>(std::move(*in.mutable_picture()));
  return picture;
}

TextJob JobFromWire(wire::TextSample& in) {
  TextJob job;
  job.prompt = ToVector(in.prompt());
  job.sampling = SamplingFromWire(in.sampling());
  job.stop_token_ids = ToVector(in.stop_token_ids());
  job.max_tokens = in.max_tokens();
  if (!in.guide().empty()) job.guide = std::make_shared<const std::string>(in.guide());
  job.source_tokens = in.source_tokens();
  job.picture = PictureFromWire(in);
  job.paint_width = in.paint_width();
  job.paint_height = in.paint_height();
  job.score_prompt = ToVector(in.score_prompt());
  return job;
}

PictureJob JobFromWire(const wire::PictureSample& in) {
  PictureJob job;
  job.prompt = ToVector(in.prompt());
  job.negative_prompt = ToVector(in.negative_prompt());
  job.width = in.width();
  job.height = in.height();
  job.sampler = in.sampler();
  job.steps = in.steps();
  job.guidance = in.guidance();
  job.seed = in.seed();
  job.score_prompt = ToVector(in.score_prompt());
  return job;
}

Pixels PixelsFromWire(uint32_t width, std::string rgb) {
  Pixels pixels;
  pixels.width = width;
  pixels.height = width == 0 ? 0 : rgb.size() / 3 / width;
  pixels.rgb = std::move(rgb);
  return pixels;
}

RowResult RowFromWire(wire::RowResult& in) {
  RowResult out;
  out.sample = in.sample();
  out.status = FromWire(in.status());
  out.tokens.reserve(in.tokens_size());
  for (const wire::Token& t : in.tokens()) {
    Token& token = out.tokens.emplace_back();
    token.id = t.id();
    token.logprob = t.logprob();
    token.top.reserve(t.top_size());
    for (const wire::TokenCandidate& c : t.top()) token.top.push_back({c.id(), c.logprob()});
  }
  out.skipped = in.skipped();
  out.drafted = in.drafted();
  out.steps_done = in.steps_done();
  out.steps_total = in.steps_total();
  out.variants.reserve(in.variants_size());
  for (const wire::VariantChange& change : in.variants()) {
    out.variants.push_back({change.first_call(), change.variant()});
  }
  out.picture = PixelsFromWire(in.picture_width(), std::move(*in.mutable_picture()));
  if (in.has_score()) out.score = in.score();
  out.preview = PixelsFromWire(in.preview_width(), std::move(*in.mutable_preview()));
  return out;
}

absl::StatusOr<StepKind> KindFromWire(wire::StepKind kind) {
  switch (kind) {
    case wire::STEP_KIND_TEXT_ENCODE:
      return StepKind::kTextEncode;
    case wire::STEP_KIND_DENOISE:
      return StepKind::kDenoise;
    case wire::STEP_KIND_VAE_DECODE:
      return StepKind::kVaeDecode;
    case wire::STEP_KIND_TEXT:
      return StepKind::kText;
    case wire::STEP_KIND_PICTURE_ENCODE:
      return StepKind::kPictureEncode;
    default:
      return absl::InvalidArgumentError(
          absl::StrCat("step.kind: ", static_cast<int>(kind), " is not a kind of step"));
  }
}

}  // namespace

absl::Status FromWire(const wire::Status& in) {
  return absl::Status(static_cast<absl::StatusCode>(in.code()), in.message());
}

WorkerHello FromWire(const wire::HelloReply& in) {
  WorkerHello out;
  out.device = in.device();
  out.device_name = in.device_name();
  out.memory.total = in.memory_bytes();
  out.memory.free = in.memory_free_bytes();
  out.pid = in.pid();
  out.build = in.build();
  return out;
}

LoadCommand FromWire(const wire::Load& in) {
  LoadCommand out;
  out.model = in.model();
  out.path = in.path();
  out.dtype = in.dtype();
  out.deterministic = in.deterministic();
  out.kv_bytes = in.kv_bytes();
  out.max_context_tokens = in.max_context_tokens();
  out.expert_bytes = in.expert_bytes();
  return out;
}

absl::StatusOr<LoadedModel> FromWire(const wire::Loaded& in) {
  if (absl::Status status = FromWire(in.status()); !status.ok()) return status;
  LoadedModel out;
  out.architecture = in.architecture();
  out.dtype = in.dtype();
  out.weight_bytes = in.weight_bytes();
  out.load_seconds = in.load_seconds();
  out.context_tokens = in.text().context_tokens();
  out.vocabulary_size = in.text().vocabulary_size();
  out.page_tokens = in.text().page_tokens();
  out.page_bytes = in.text().page_bytes();
  out.pages = in.text().pages();
  out.latent_factor = in.picture().latent_factor();
  out.latent_channels = in.picture().latent_channels();
  out.default_size = in.picture().default_size();
  out.prompt_tokens = in.picture().prompt_tokens();
  out.default_sampler = in.picture().default_sampler();
  out.samplers.assign(in.picture().samplers().begin(), in.picture().samplers().end());
  for (const wire::Expert& expert : in.picture().experts()) {
    out.experts.push_back({expert.name(), expert.t_min(), expert.t_max()});
  }
  out.resident_experts = in.picture().resident_experts();
  out.has_reranker = in.picture().has_reranker();
  return out;
}

absl::StatusOr<BeginCommand> FromWire(wire::Begin in) {
  BeginCommand out;
  out.sample = in.sample();
  out.model = in.model();
  switch (in.kind_case()) {
    case wire::Begin::kText:
      out.job = JobFromWire(*in.mutable_text());
      out.resume.emitted = ToVector(in.text().emitted());
      out.resume.cached_tokens = in.text().cached_tokens();
      return out;
    case wire::Begin::kPicture:
      out.job = JobFromWire(in.picture());
      out.resume.save_point = std::move(*in.mutable_picture()->mutable_save_point());
      return out;
    case wire::Begin::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("begin.kind: a text or a picture is expected");
}

absl::StatusOr<Step> FromWire(const wire::Step& in) {
  absl::StatusOr<StepKind> kind = KindFromWire(in.kind());
  if (!kind.ok()) return kind.status();
  Step out;
  out.id = in.step();
  out.model = in.model();
  out.kind = *kind;
  out.rows.reserve(in.rows_size());
  for (const wire::Row& r : in.rows()) {
    out.rows.push_back(
        {r.sample(), r.prefill_tokens(), ToVector(r.new_pages()), r.preview(), r.draft_tokens()});
  }
  out.budget = absl::Microseconds(in.budget_us());
  return out;
}

ResumeCommand FromWire(const wire::Resume& in) {
  return {in.step(), absl::Microseconds(in.budget_us())};
}

StepResult FromWire(wire::StepDone in) {
  StepResult out;
  out.step = in.step();
  out.status = FromWire(in.status());
  out.rows.reserve(in.rows_size());
  for (wire::RowResult& row : *in.mutable_rows()) out.rows.push_back(RowFromWire(row));
  out.device_time = absl::Seconds(in.device_seconds());
  out.idle_time = absl::Seconds(in.idle_seconds());
  out.memory.used = in.memory_used_bytes();
  out.memory.free = in.memory_free_bytes();
  out.peak_bytes = in.peak_bytes();
  out.weights_time = absl::Seconds(in.weights_seconds());
  out.suspended = in.suspended();
  out.already_done = in.already_done();
  return out;
}

SavePoint FromWire(wire::Saved in) {
  SavePoint out;
  out.sample = in.sample();
  out.steps_done = in.steps_done();
  out.bytes = std::move(*in.mutable_save_point());
  return out;
}

}  // namespace hanmo
