#include "server/rpc/text_fields.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/rpc/guide_fields.h"

namespace hanmo {
namespace {

using hanmo::v1::TextParameters;

constexpr int kMaxLogitBiases = 1024;
constexpr int kMaxStops = 16;
constexpr size_t kMaxStopBytes = 256;
constexpr int kMaxStopTokenIds = 64;
constexpr uint32_t kMaxLogprobs = 20;

void CheckVocabulary(absl::string_view field, uint32_t id, uint32_t vocabulary,
                     Violations* violations) {
  if (id < vocabulary) return;
  violations->Add(field, absl::StrCat("token ids must be below the vocabulary size ", vocabulary,
                                      ", got ", id));
}

void CheckLogitBias(const TextParameters& text, uint32_t vocabulary, Violations* violations) {
  if (text.logit_bias_size() > kMaxLogitBiases) {
    violations->Add("text.logit_bias", absl::StrCat("must be at most ", kMaxLogitBiases,
                                                    " entries, got ", text.logit_bias_size()));
    return;
  }
  for (const auto& [id, bias] : text.logit_bias()) {
    const std::string field = absl::StrCat("text.logit_bias[", id, "]");
    CheckVocabulary(field, id, vocabulary, violations);
    violations->CheckRange(field, bias, -100, 100);
  }
}

void CheckStops(const TextParameters& text, uint32_t vocabulary, Violations* violations) {
  if (text.stop_size() > kMaxStops) {
    violations->Add("text.stop", absl::StrCat("must be at most ", kMaxStops, " strings, got ",
                                              text.stop_size()));
  }
  for (int i = 0; i < std::min(text.stop_size(), kMaxStops); ++i) {
    const size_t bytes = text.stop(i).size();
    if (bytes >= 1 && bytes <= kMaxStopBytes) continue;
    violations->Add(absl::StrCat("text.stop[", i, "]"),
                    absl::StrCat("must be 1 to ", kMaxStopBytes, " bytes, got ", bytes));
  }
  if (text.stop_token_ids_size() > kMaxStopTokenIds) {
    violations->Add("text.stop_token_ids", absl::StrCat("must be at most ", kMaxStopTokenIds,
                                                        ", got ", text.stop_token_ids_size()));
    return;
  }
  for (int i = 0; i < text.stop_token_ids_size(); ++i) {
    CheckVocabulary(absl::StrCat("text.stop_token_ids[", i, "]"), text.stop_token_ids(i),
                    vocabulary, violations);
  }
}

void CheckText(const TextParameters& text, const TextModelSpec& model, Violations* violations) {
  if (text.has_max_tokens()) {
    violations->CheckRange("text.max_tokens", text.max_tokens(), 1, model.context_tokens);
  }
  if (text.has_temperature()) {
    violations->CheckRange("text.temperature", text.temperature(), 0, 100);
  }
  if (text.has_top_p()) violations->CheckPositive("text.top_p", text.top_p(), 1);
  if (text.has_min_p()) violations->CheckRange("text.min_p", text.min_p(), 0, 1);
  if (text.has_repetition_penalty()) {
    violations->CheckRange("text.repetition_penalty", text.repetition_penalty(), 0.001, 10);
  }
  if (text.has_presence_penalty()) {
    violations->CheckRange("text.presence_penalty", text.presence_penalty(), -2, 2);
  }
  if (text.has_frequency_penalty()) {
    violations->CheckRange("text.frequency_penalty", text.frequency_penalty(), -2, 2);
  }
  if (text.has_logprobs()) {
    violations->CheckRange("text.logprobs", text.logprobs(), 0, kMaxLogprobs);
  }
  if (text.has_n()) violations->CheckRange("text.n", text.n(), 1, kMaxSamples);
  if (text.has_min_tokens()) {
    violations->CheckRange("text.min_tokens", text.min_tokens(), 0,
                           text.has_max_tokens() ? text.max_tokens() : model.context_tokens);
  }
  CheckLogitBias(text, model.vocabulary_size, violations);
  CheckStops(text, model.vocabulary_size, violations);
}

TokenSampling SamplingFrom(const TextParameters& text, const TextModelSpec& model) {
  TokenSampling sampling;
  sampling.temperature = text.has_temperature() ? text.temperature() : model.temperature;
  sampling.top_k = text.has_top_k() ? text.top_k() : model.top_k;
  sampling.top_p = text.has_top_p() ? text.top_p() : model.top_p;
  sampling.min_p = text.min_p();
  sampling.repetition_penalty =
      text.has_repetition_penalty() ? text.repetition_penalty() : model.repetition_penalty;
  sampling.presence_penalty = text.presence_penalty();
  sampling.frequency_penalty = text.frequency_penalty();
  sampling.logit_bias.insert(text.logit_bias().begin(), text.logit_bias().end());
  sampling.min_tokens = text.min_tokens();
  if (text.has_logprobs()) sampling.logprobs = text.logprobs();
  return sampling;
}

}  // namespace

void PlanText(const hanmo::v1::GenerateRequest& proto, uint64_t drawn_seed, GenerationPlan* plan,
              Violations* violations) {
  const TextParameters& text = proto.text();
  const TextModelSpec& model = plan->model->spec.text;
  if (proto.has_picture()) {
    violations->Add("picture", plan->caption ? "a picture is made from words; use text"
                                             : "this model writes texts; use text");
  }
  CheckText(text, model, violations);
  if (plan->model->tokenizer == nullptr && text.stop_size() > 0) {
    violations->Add("text.stop", "must be empty: this model has no tokenizer");
  }
  if (text.has_guide()) CheckGuideFields(text, *plan->model, violations);
  if (!violations->empty()) return;

  TextJob job;
  job.sampling = SamplingFrom(text, model);
  job.max_tokens = text.max_tokens();
  if (!text.ignore_eos()) job.stop_token_ids = model.eos_token_ids;
  job.stop_token_ids.insert(job.stop_token_ids.end(), text.stop_token_ids().begin(),
                            text.stop_token_ids().end());
  // Whatever would end the text is masked before min_tokens.
  job.sampling.eos_token_ids = job.stop_token_ids;

  if (text.has_guide()) {
    job.guide = std::make_shared<const std::string>(PackGuide(text.guide()));
    plan->guide_field = GuideField(text.guide());
  }

  plan->stop.assign(text.stop().begin(), text.stop().end());
  plan->stop_token_ids.assign(text.stop_token_ids().begin(), text.stop_token_ids().end());
  plan->include_stop = text.include_stop();
  plan->logprobs = text.has_logprobs();
  plan->default_max_tokens = !text.has_max_tokens();
  const uint64_t seed = text.has_seed() ? text.seed() : drawn_seed;
  const uint32_t n = text.has_n() ? text.n() : 1;
  plan->request.samples.reserve(n);
  for (uint32_t i = 0; i < n; ++i) {
    job.sampling.seed = seed + i;
    plan->request.samples.emplace_back(job);
  }
}

absl::Status SettleLength(absl::string_view field, size_t prompt_tokens, GenerationPlan* plan) {
  const TextModelSpec& model = plan->model->spec.text;
  if (prompt_tokens >= model.context_tokens) {
    return FieldError(field, absl::StrCat("must be at most ", model.context_tokens - 1,
                                          " tokens for this model, got ", prompt_tokens));
  }
  const uint32_t room = model.context_tokens - static_cast<uint32_t>(prompt_tokens);
  for (SampleJob& sample : plan->request.samples) {
    auto& job = std::get<TextJob>(sample);
    if (plan->default_max_tokens) {
      job.max_tokens = std::min(room, std::max(model.max_tokens, job.sampling.min_tokens));
    }
    if (job.max_tokens > room) {
      return FieldError("text.max_tokens", absl::StrCat("must be 1 to ", room, " (",
                                                        model.context_tokens, " less the prompt's ",
                                                        prompt_tokens, "), got ", job.max_tokens));
    }
    if (job.sampling.min_tokens > job.max_tokens) {
      return FieldError("text.min_tokens", absl::StrCat("must be 0 to ", job.max_tokens, ", got ",
                                                        job.sampling.min_tokens));
    }
  }
  return absl::OkStatus();
}

absl::Status SetTextPrompt(std::vector<uint32_t> prompt, GenerationPlan* plan) {
  if (prompt.empty()) return FieldError("prompt", "must not be empty");
  if (auto status = SettleLength("prompt", prompt.size(), plan); !status.ok()) return status;
  for (SampleJob& sample : plan->request.samples) {
    std::get<TextJob>(sample).prompt =
        &sample == &plan->request.samples.back() ? std::move(prompt) : prompt;
  }
  return absl::OkStatus();
}

}  // namespace hanmo
