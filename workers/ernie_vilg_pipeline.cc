#include "workers/ernie_vilg_pipeline.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/batcher/non_finite.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/kv_pages.h"
#include "workers/models/ernie_vilg.h"
#include "workers/models/token_sampler.h"
#include "workers/models/vae.h"
#include "workers/models/vqgan.h"

namespace hanmo {

VilgRow ErnieVilgPipeline::Sample::NextRow(size_t count) const {
  return {.tokens = absl::MakeConstSpan(tokens).subspan(cached, count),
          .start = static_cast<int64_t>(cached),
          .source_tokens = job.source_tokens,
          .paints = job.paints(),
          .page_table = pages,
          .logits = cached + count == tokens.size() ? LogitsOf::kLastToken : LogitsOf::kNone};
}

void ErnieVilgPipeline::Begin(SampleHandle handle, SampleJob job, Resume resume) {
  auto* text = std::get_if<TextJob>(&job);
  absl::StatusOr<Sample> made =
      text == nullptr
          ? absl::InvalidArgumentError("this model paints by tokens, it denoises nothing")
          : MakeSample(std::move(*text), resume);
  auto sample = std::make_shared<Sample>();
  if (made.ok()) {
    *sample = *std::move(made);
  } else {
    sample->invalid = made.status();
  }
  samples_[handle] = std::move(sample);
}

absl::Status ErnieVilgPipeline::Run(const Step& step, std::vector<RowResult>* rows) {
  rows->resize(step.rows.size());
  std::vector<Rider> riders;
  std::set<SampleHandle> aboard;
  for (size_t i = 0; i < step.rows.size(); ++i) {
    RowResult& result = (*rows)[i];
    result.sample = step.rows[i].sample;
    const auto found = samples_.find(result.sample);
    if (found == samples_.end()) {
      result.status = absl::NotFoundError(absl::StrCat("sample ", result.sample, " is unknown"));
    } else if (!aboard.insert(result.sample).second) {
      result.status = absl::InvalidArgumentError("step.rows: a sample is in the step twice");
    } else if (!found->second->invalid.ok()) {
      result.status = found->second->invalid;
    } else {
      riders.push_back({found->second, &result, &step.rows[i]});
    }
  }
  switch (step.kind) {
    case StepKind::kText:
      HANMO_RETURN_IF_ERROR(RunText(riders));
      break;
    case StepKind::kPictureEncode:
      HANMO_RETURN_IF_ERROR(EncodePictures(riders));
      break;
    case StepKind::kVaeDecode:
      HANMO_RETURN_IF_ERROR(DecodePictures(riders));
      break;
    case StepKind::kTextEncode:
    case StepKind::kDenoise:
      return absl::InvalidArgumentError("step.kind: this model paints by tokens");
  }
  for (RowResult& result : *rows) {
    if (result.status.ok() && !samples_.contains(result.sample)) {
      const SampleHandle sample = result.sample;
      result = RowResult();
      result.sample = sample;
      result.status = absl::NotFoundError("dropped while its step was suspended");
    }
    if (!result.status.ok()) samples_.erase(result.sample);
  }
  return absl::OkStatus();
}

absl::Status ErnieVilgPipeline::Board(Rider& rider) const {
  Sample& sample = *rider.sample;
  rider.first_page = sample.pages.size();
  rider.count = std::max<size_t>(1, rider.row->prefill_tokens);
  for (const uint32_t page : rider.row->new_pages) {
    if (page >= loaded_.pages) {
      return absl::InvalidArgumentError(
          absl::StrCat("new_pages: ", page, ", below ", loaded_.pages, " expected"));
    }
    sample.pages.push_back(static_cast<int32_t>(page));
  }
  rider.result->skipped = sample.ended;
  if (sample.ended) return absl::OkStatus();
  if (sample.cached + rider.count > sample.tokens.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("prefill_tokens: ", rider.row->prefill_tokens, ", the sample has ",
                     sample.tokens.size() - sample.cached, " known tokens to run"));
  }
  if (sample.awaits_picture && sample.cached < sample.job.source_tokens) {
    return absl::FailedPreconditionError("the picture is not encoded yet");
  }
  return model_->CheckRow(sample.NextRow(rider.count), cache_);
}

absl::Status ErnieVilgPipeline::RunText(std::vector<Rider>& riders) {
  std::vector<Rider*> running;
  std::vector<VilgRow> batch;
  for (Rider& rider : riders) {
    rider.result->status = Board(rider);
    if (rider.result->status.ok() && !rider.result->skipped) running.push_back(&rider);
  }
  for (const Rider* rider : running) batch.push_back(rider->sample->NextRow(rider->count));
  const auto logits = model_->Run(batch, cache_);
  if (!logits.ok()) {
    // No row advanced: the new pages are not theirs either.
    for (const Rider& rider : riders) rider.sample->pages.resize(rider.first_page);
    return logits.status();
  }
  at::parallel_for(0, static_cast<int64_t>(running.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Rider& rider = *running[i];
      rider.sample->cached += rider.count;
      const at::Tensor& row = (*logits)[i];
      if (!row.defined()) continue;  // not the last of the known tokens
      rider.result->status = SampleNext(
          *rider.sample, {row.data_ptr<float>(), static_cast<size_t>(row.numel())}, rider.result);
    }
  });
  return absl::OkStatus();
}

absl::Status ErnieVilgPipeline::SampleNext(Sample& sample, absl::Span<float> logits,
                                           RowResult* result) const {
  const TextJob& job = sample.job;
  // What a text was told to begin with.
  const size_t begun = PagesFor(job.source_tokens) * kPageTokens + 1;
  const auto prompt = absl::MakeConstSpan(job.prompt).subspan(begun);
  std::vector<uint32_t> ending_ids = job.stop_token_ids;
  ending_ids.insert(ending_ids.end(), job.sampling.eos_token_ids.begin(),
                    job.sampling.eos_token_ids.end());
  if (job.paints()) ending_ids.clear();
  HANMO_ASSIGN_OR_RETURN(
      Token token, SampleToken(logits, job.sampling, {prompt, sample.generated}, {ending_ids, {}}));
  sample.generated.push_back(token.id);
  const auto& stops = job.stop_token_ids;
  const bool stopped =
      !job.paints() && std::find(stops.begin(), stops.end(), token.id) != stops.end();
  sample.ended = stopped || sample.generated.size() == job.max_tokens;
  if (job.paints()) {
    // Codes become picture tokens.
    const auto first = static_cast<uint32_t>(model_->config().text_vocabulary);
    token.id += first;
    for (TokenCandidate& candidate : token.top) candidate.id += first;
  }
  sample.tokens.push_back(static_cast<int32_t>(token.id));
  result->tokens.push_back(std::move(token));
  return absl::OkStatus();
}

absl::Status ErnieVilgPipeline::EncodePictures(const std::vector<Rider>& riders) const {
  std::vector<const Rider*> reading;
  std::vector<at::Tensor> pictures;
  for (const Rider& rider : riders) {
    const auto& rgb = rider.sample->job.picture.rgb;
    if (rgb == nullptr) {
      rider.result->status = absl::FailedPreconditionError("the sample has no picture to encode");
      continue;
    }
    const at::Tensor bytes =
        at::from_blob(const_cast<char*>(rgb->data()), {height(), width(), 3}, at::kByte);
    pictures.push_back(bytes.to(at::kFloat).permute({2, 0, 1}) / 127.5 - 1);
    reading.push_back(&rider);
  }
  if (reading.empty()) return absl::OkStatus();
  const at::Tensor codes =
      vqgan_->Encode(at::stack(pictures).to(options_.device->device())).to(at::kCPU);
  const ErnieVilgConfig& config = model_->config();
  for (size_t i = 0; i < reading.size(); ++i) {
    Sample& sample = *reading[i]->sample;
    const at::Tensor tokens = (codes[i].flatten() + config.text_vocabulary).to(at::kInt);
    std::copy_n(tokens.data_ptr<int32_t>(), tokens.numel(), sample.tokens.begin());
    sample.awaits_picture = false;
  }
  return absl::OkStatus();
}

absl::Status ErnieVilgPipeline::DecodePictures(const std::vector<Rider>& riders) {
  const ErnieVilgConfig& config = model_->config();
  std::vector<PictureScorer::Row> painted;
  std::vector<at::Tensor> codes;
  for (const Rider& rider : riders) {
    const std::vector<uint32_t>& generated = rider.sample->generated;
    if (!rider.sample->job.paints() ||
        static_cast<int64_t>(generated.size()) < config.picture_tokens()) {
      rider.result->status = absl::FailedPreconditionError(absl::StrCat(
          generated.size(), " picture tokens painted, ", config.picture_tokens(), " expected"));
      continue;
    }
    const std::vector<int64_t> ids(generated.begin(), generated.end());
    codes.push_back(at::tensor(ids, at::kLong).view({config.rows, config.columns}));
    painted.push_back({&rider.sample->job.score_prompt, rider.result});
  }
  if (painted.empty()) return absl::OkStatus();
  const at::Tensor decoded = vqgan_->Decode(at::stack(codes).to(options_.device->device()));
  const at::Tensor rgb = ToRgb8(decoded).contiguous();
  for (size_t i = 0; i < painted.size(); ++i) {
    RowResult& result = *painted[i].result;
    if (!at::isfinite(decoded[i]).all().item<bool>()) {
      result.status = absl::InternalError(absl::StrCat(kNonFinite, "the picture has NaN or Inf"));
      continue;
    }
    result.picture.width = width();
    result.picture.height = height();
    const auto* bytes = reinterpret_cast<const char*>(rgb[i].data_ptr<uint8_t>());
    result.picture.rgb.assign(bytes, rgb[i].numel());
  }
  scorer_.Score(painted, rgb);
  return absl::OkStatus();
}

}  // namespace hanmo
