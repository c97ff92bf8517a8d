#include "workers/text_pipeline.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/kv_pages.h"
#include "workers/models/token_sampler.h"

namespace hanmo {

absl::StatusOr<std::unique_ptr<TextPipeline>> TextPipeline::Load(const PipelineOptions& options) {
  HANMO_ASSIGN_OR_RETURN(
      Checkpoint checkpoint,
      Checkpoint::Open(options.folder, {options.dtype, options.device->device(), ""}));
  std::unique_ptr<TextPipeline> pipeline(new TextPipeline(options));
  HANMO_ASSIGN_OR_RETURN(pipeline->model_, TextModel::Load(checkpoint));
  HANMO_RETURN_IF_ERROR(pipeline->MakeCache());
  pipeline->guides_ = GuidesOf(options.folder, pipeline->loaded_.architecture);
  return pipeline;
}

absl::Status TextPipeline::MakeCache() {
  const TextModelShape& shape = model_->shape();
  int64_t context = shape.context_tokens;
  if (options_.max_context_tokens > 0) {
    context = std::min<int64_t>(context, options_.max_context_tokens);
  }
  const uint64_t page_bytes = model_->page_bytes();
  HANMO_ASSIGN_OR_RETURN(const int64_t pages, ChooseKvPages(options_, page_bytes, context));
  cache_ = model_->MakeCache(pages);
  loaded_.architecture = shape.architecture;
  loaded_.dtype = DtypeName(options_.dtype);
  loaded_.weight_bytes = model_->weight_bytes();
  loaded_.context_tokens = context;
  loaded_.vocabulary_size = shape.vocab_size;
  loaded_.page_tokens = TextModel::kPageTokens;
  loaded_.page_bytes = page_bytes;
  loaded_.pages = pages;
  return absl::OkStatus();
}

absl::Status TextPipeline::WarmUp() {
  const std::vector<int32_t> tokens(std::min<int64_t>(8, loaded_.context_tokens), 0);
  const std::vector<int32_t> pages = {0};
  TextRow row;
  row.tokens = tokens;
  row.page_table = pages;
  HANMO_ASSIGN_OR_RETURN(const TextLogits logits, model_->Run({row}, cache_));
  if (at::isfinite(logits.values).all().item<bool>()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("the model predicts NaN or Inf in ", loaded_.dtype, "; try another dtype"));
}

absl::StatusOr<TextPipeline::Text> TextPipeline::MakeText(TextJob job, const Resume& resume) const {
  Text text;
  if (job.prompt.empty()) return absl::InvalidArgumentError("prompt: empty");
  if (job.max_tokens == 0) return absl::InvalidArgumentError("max_tokens: at least 1 expected");
  if (job.prompt.size() + job.max_tokens > loaded_.context_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("prompt: ", job.prompt.size(), " tokens and ",
                                                   job.max_tokens, " to write, at most ",
                                                   loaded_.context_tokens, " in all expected"));
  }
  text.tokens = job.prompt;
  text.tokens.insert(text.tokens.end(), resume.emitted.begin(), resume.emitted.end());
  const uint32_t largest = *std::max_element(text.tokens.begin(), text.tokens.end());
  if (largest >= loaded_.vocabulary_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("prompt: token ", largest, ", below ", loaded_.vocabulary_size, " expected"));
  }
  if (resume.emitted.size() >= job.max_tokens) {
    return absl::InvalidArgumentError(absl::StrCat("emitted: ", resume.emitted.size(),
                                                   " tokens, below max_tokens ", job.max_tokens,
                                                   " expected"));
  }
  if (resume.cached_tokens >= text.tokens.size() ||
      resume.cached_tokens % TextModel::kPageTokens != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cached_tokens: ", resume.cached_tokens, ", whole pages of ", TextModel::kPageTokens,
        " tokens, below the ", text.tokens.size(), " known ones, expected"));
  }
  text.cached = resume.cached_tokens;
  text.ending_ids = job.stop_token_ids;
  text.ending_ids.insert(text.ending_ids.end(), job.sampling.eos_token_ids.begin(),
                         job.sampling.eos_token_ids.end());
  if (job.guide != nullptr) {
    text.guide = std::make_unique<TextGuide>(guides_, job.guide, resume.emitted);
  }
  text.job = std::move(job);
  return text;
}

void TextPipeline::Begin(SampleHandle sample, SampleJob job, Resume resume) {
  auto* text_job = std::get_if<TextJob>(&job);
  absl::StatusOr<Text> text =
      text_job == nullptr ? absl::InvalidArgumentError("this model writes text, it paints nothing")
                          : MakeText(std::move(*text_job), resume);
  if (text.ok()) {
    texts_[sample] = *std::move(text);
  } else {
    texts_[sample] = {};
    texts_[sample].invalid = text.status();
  }
}

absl::Status TextPipeline::Run(const Step& step, std::vector<RowResult>* rows) {
  if (step.kind != StepKind::kText) {
    return absl::InvalidArgumentError("step.kind: a text model takes text steps only");
  }
  rows->resize(step.rows.size());
  std::vector<Rider> riders;
  std::set<SampleHandle> aboard;
  size_t positions = 0;
  for (const Row& row : step.rows) positions += std::max<size_t>(1, row.prefill_tokens);
  for (size_t i = 0; i < step.rows.size(); ++i) {
    RowResult& result = (*rows)[i];
    result.sample = step.rows[i].sample;
    absl::StatusOr<Rider> rider =
        aboard.insert(result.sample).second
            ? Board(step.rows[i], positions, &result)
            : absl::InvalidArgumentError("step.rows: a sample is in the step twice");
    if (rider.ok() && !result.skipped) riders.push_back(*std::move(rider));
    if (!rider.ok()) result.status = rider.status();
  }
  if (!riders.empty()) {
    if (absl::Status status = Forward(riders); !status.ok()) {
      // No row advanced: the new pages are not theirs either.
      for (Rider& rider : riders) rider.text->pages.resize(rider.first_page);
      return status;
    }
  }
  for (const RowResult& result : *rows) {
    if (!result.status.ok()) texts_.erase(result.sample);
  }
  return absl::OkStatus();
}

absl::StatusOr<TextPipeline::Rider> TextPipeline::Board(const Row& row, size_t positions,
                                                        RowResult* result) {
  auto found = texts_.find(row.sample);
  if (found == texts_.end()) {
    return absl::NotFoundError(absl::StrCat("sample ", row.sample, " is unknown"));
  }
  Text& text = found->second;
  if (!text.invalid.ok()) return text.invalid;
  Rider rider = {&text, result, text.pages.size(), std::max<size_t>(1, row.prefill_tokens), {}};
  for (uint32_t page : row.new_pages) {
    if (page >= loaded_.pages) {
      return absl::InvalidArgumentError(
          absl::StrCat("new_pages: ", page, ", below ", loaded_.pages, " expected"));
    }
    text.pages.push_back(page);
  }
  result->skipped = text.ended;
  if (text.ended) return rider;
  if (text.cached + rider.count > text.tokens.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("prefill_tokens: ", row.prefill_tokens, ", the sample has ",
                     text.tokens.size() - text.cached, " known tokens to run"));
  }
  const size_t pages_needed = PagesFor(text.cached + rider.count);
  if (text.pages.size() < pages_needed) {
    return absl::InvalidArgumentError(absl::StrCat("new_pages: the sample has ", text.pages.size(),
                                                   " pages, ", pages_needed, " are needed"));
  }
  const auto first = text.tokens.begin() + static_cast<ptrdiff_t>(text.cached);
  rider.tokens.assign(first, first + static_cast<ptrdiff_t>(rider.count));
  if (row.prefill_tokens == 0) Draft(row, positions, rider);
  return rider;
}

void TextPipeline::Draft(const Row& row, size_t positions, Rider& rider) const {
  Text& text = *rider.text;
  if (!rider.samples()) return;
  // Elsewhere a guess could change a token by rounding.
  if (options_.deterministic && !options_.device->device().is_cpu()) return;
  const size_t room = std::min(text.pages.size() * TextModel::kPageTokens - text.cached - 1,
                               text.job.max_tokens - text.generated().size() - 1);
  const auto limit = static_cast<uint32_t>(std::min<size_t>(row.draft_tokens, room));
  for (uint32_t guess : text.drafter.Guess(text.tokens, limit, positions)) {
    rider.tokens.push_back(static_cast<int32_t>(guess));
  }
  rider.result->drafted = static_cast<uint32_t>(rider.tokens.size() - 1);
}

absl::Status TextPipeline::Forward(std::vector<Rider>& riders) {
  std::vector<TextRow> batch;
  for (const Rider& rider : riders) {
    TextRow& row = batch.emplace_back();
    row.tokens = rider.tokens;
    row.start = static_cast<int64_t>(rider.text->cached);
    row.page_table = rider.text->pages;
    row.logits = !rider.samples()                    ? LogitsOf::kNone
                 : rider.tokens.size() > rider.count ? LogitsOf::kAllTokens
                                                     : LogitsOf::kLastToken;
  }
  HANMO_ASSIGN_OR_RETURN(const TextLogits logits, model_->Run(batch, cache_));
  at::parallel_for(0, static_cast<int64_t>(riders.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Rider& rider = riders[i];
      const bool samples = rider.samples();
      rider.text->cached += rider.count;
      if (samples) SampleNext(rider, logits, logits.first[i]);
    }
  });
  return absl::OkStatus();
}

void TextPipeline::SampleNext(Rider& rider, const TextLogits& logits, int64_t first) {
  Text& text = *rider.text;
  RowResult& result = *rider.result;
  const auto guesses = absl::MakeConstSpan(rider.tokens).subspan(rider.count);
  uint32_t right = 0;
  for (bool more = true; more;) {
    if (absl::Status status = SampleOne(text, logits.Row(first + right), &result); !status.ok()) {
      // After a right guess the next row meets the error, as it would have without guesses.
      if (right == 0) result.status = status;
      return;
    }
    if (right > 0) ++text.cached;
    more = !text.ended && right < guesses.size() &&
           text.tokens.back() == static_cast<uint32_t>(guesses[right]);
    if (more) ++right;
  }
  text.drafter.Learn(right);
}

absl::Status TextPipeline::SampleOne(Text& text, absl::Span<float> logits, RowResult* result) {
  TokenRules rules = {text.ending_ids, {}};
  if (text.guide != nullptr) {
    HANMO_ASSIGN_OR_RETURN(rules, text.guide->Next(text.ending_ids));
  }
  absl::StatusOr<Token> token =
      SampleToken(logits, text.job.sampling, {text.job.prompt, text.generated()}, rules);
  if (!token.ok()) return token.status();
  text.tokens.push_back(token->id);
  const std::vector<uint32_t>& stops = text.job.stop_token_ids;
  text.ended = text.generated().size() == text.job.max_tokens ||
               std::find(stops.begin(), stops.end(), token->id) != stops.end();
  if (text.guide != nullptr && !text.ended) text.guide->Consume(token->id);
  result->tokens.push_back(*std::move(token));
  return absl::OkStatus();
}

}  // namespace hanmo
