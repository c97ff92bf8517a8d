#include "server/batcher/testing/fake_worker.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace hanmo::testing {
void FakeWorker::Serve(ModelId model, ModelCapacity capacity) {
  models_[model] = capacity;
  batcher_->ModelReady(id_, model, capacity);
}

size_t FakeWorker::steps_waiting() const {
  return std::count_if(commands_.begin(), commands_.end(), [](const Command& c) {
    return std::holds_alternative<Step>(c) || std::holds_alternative<ResumeCommand>(c);
  });
}

void FakeWorker::Begin(SampleHandle sample, ModelId model, const SampleJob& job,
                       hanmo::Resume resume) {
  Sample fresh;
  fresh.model = model;
  fresh.job = job;
  fresh.emitted = std::move(resume.emitted);
  fresh.cached = fresh.shared = resume.cached_tokens;
  shared_tokens_ += fresh.shared;
  if (!resume.save_point.empty()) {
    const auto* picture = std::get_if<PictureJob>(&job);
    if (picture == nullptr) return Breach("a save point for a text");
    fresh.steps = std::stoul(resume.save_point);
    fresh.paint = PaintStart(*picture);
    for (uint32_t i = 0; i < fresh.steps; ++i) fresh.paint = PaintStep(fresh.paint, i);
  }
  commands_.push_back(BeginCommand{sample, std::move(fresh)});
}

void FakeWorker::Run(const Step& step) {
  if (step.id <= last_step_) Breach("step ids do not increase");
  last_step_ = step.id;
  if (step.rows.empty()) Breach("an empty step");
  if (step.budget < absl::ZeroDuration()) Breach("a negative budget");
  std::set<SampleHandle> rows;
  for (const Row& row : step.rows) {
    if (!rows.insert(row.sample).second) Breach("a sample twice in one step");
  }
  steps_.push_back(step);
  commands_.push_back(step);
}

void FakeWorker::Resume(uint64_t step, absl::Duration budget) {
  const auto sent = std::find_if(steps_.rbegin(), steps_.rend(),
                                 [&](const Step& other) { return other.id == step; });
  if (sent == steps_.rend()) {
    Breach("a resume of a step that was never sent");
  } else if (sent->budget <= absl::ZeroDuration()) {
    Breach("a resume of a step without a budget");
  }
  if (budget < absl::ZeroDuration()) Breach("a negative budget");
  resumes_.push_back(step);
  commands_.push_back(ResumeCommand{step, budget});
}

void FakeWorker::Save(const std::vector<SampleHandle>& samples) {
  ++saves_;
  commands_.push_back(SaveCommand{samples});
}

void FakeWorker::Drop(const std::vector<SampleHandle>& samples) {
  dropped_.insert(dropped_.end(), samples.begin(), samples.end());
  commands_.push_back(DropCommand{samples});
}

bool FakeWorker::RunStep() {
  while (!commands_.empty() && !dead_) {
    Command command = std::move(commands_.front());
    commands_.pop_front();
    if (const Step* step = std::get_if<Step>(&command)) {
      StepResult result = Execute(*step);
      if (dead_) return false;
      batcher_->StepDone(id_, std::move(result));
      return true;
    }
    if (const auto* resume = std::get_if<ResumeCommand>(&command)) {
      StepResult result = Execute(*resume);
      if (dead_) return false;
      batcher_->StepDone(id_, std::move(result));
      return true;
    }
    if (auto* begin = std::get_if<BeginCommand>(&command)) Execute(*begin);
    if (auto* save = std::get_if<SaveCommand>(&command)) Execute(*save);
    if (auto* drop = std::get_if<DropCommand>(&command)) Execute(*drop);
  }
  return false;
}

void FakeWorker::Execute(BeginCommand& begin) {
  if (models_.count(begin.sample.model) == 0) Breach("Begin for a model that is not loaded");
  if (!samples_.emplace(begin.handle, std::move(begin.sample)).second) Breach("a handle twice");
}

void FakeWorker::Execute(SaveCommand& save) {
  for (SampleHandle handle : save.samples) {
    auto found = samples_.find(handle);
    if (found == samples_.end() || found->second.steps == 0) continue;
    batcher_->Saved(id_, {handle, found->second.steps, absl::StrCat(found->second.steps)});
  }
}

void FakeWorker::Execute(DropCommand& drop) {
  for (SampleHandle handle : drop.samples) {
    if (samples_.erase(handle) == 0) Breach("Drop of an unknown sample");
    if (suspended_.has_value()) suspended_->samples.erase(handle);
  }
  if (suspended_.has_value() && suspended_->samples.empty()) suspended_.reset();
}

StepResult FakeWorker::Execute(const Step& step) {
  if (step.kind == StepKind::kText) {
    if (step.budget > absl::ZeroDuration()) Breach("a budget for a text step");
    return ExecuteWhole(step);
  }
  if (suspended_.has_value()) {
    Breach("a picture step while another is suspended");
    StepResult result;
    result.step = step.id;
    result.status = absl::FailedPreconditionError(
        absl::StrCat("step ", step.id, ": step ", suspended_->step.id, " is suspended"));
    return result;
  }
  if (step.budget <= absl::ZeroDuration()) return ExecuteWhole(step);
  suspended_ = SlicedStep{step, std::max(slices_, 1u), {}};
  for (const Row& row : step.rows) suspended_->samples.insert(row.sample);
  return ExecuteSlice(step.budget);
}

StepResult FakeWorker::Execute(const ResumeCommand& resume) {
  if (suspended_.has_value() && suspended_->step.id == resume.step) {
    return ExecuteSlice(resume.budget);
  }
  ++late_resumes_;
  StepResult result;
  result.step = resume.step;
  result.already_done = true;
  return result;
}

StepResult FakeWorker::ExecuteSlice(absl::Duration budget) {
  SlicedStep& sliced = *suspended_;
  if (budget == absl::ZeroDuration()) sliced.slices_left = 1;
  if (--sliced.slices_left > 0) {
    StepResult result;
    result.step = sliced.step.id;
    result.suspended = true;
    result.device_time = absl::Milliseconds(10);
    return result;
  }
  const SlicedStep last = *std::exchange(suspended_, std::nullopt);
  Step rest = last.step;
  std::erase_if(rest.rows, [&](const Row& row) { return last.samples.count(row.sample) == 0; });
  StepResult result = ExecuteWhole(rest);
  if (!result.status.ok()) return result;
  // Rows of samples that were dropped meanwhile are there, and nobody's.
  std::vector<RowResult> rows;
  for (const Row& row : last.step.rows) {
    auto found = std::find_if(result.rows.begin(), result.rows.end(),
                              [&](const RowResult& done) { return done.sample == row.sample; });
    if (found != result.rows.end()) {
      rows.push_back(std::move(*found));
    } else {
      rows.emplace_back().sample = row.sample;
      rows.back().status = absl::NotFoundError("dropped while its step was suspended");
    }
  }
  result.rows = std::move(rows);
  return result;
}

StepResult FakeWorker::ExecuteWhole(const Step& step) {
  StepResult result;
  result.step = step.id;
  result.device_time = absl::Milliseconds(10);
  result.peak_bytes = bytes_per_row_ * step.rows.size();
  result.memory.free = memory_free_;
  for (const Row& row : step.rows) {
    auto found = samples_.find(row.sample);
    if (found != samples_.end() && deadly_seed_ == SeedOf(found->second.job)) dead_ = true;
  }
  if (dead_) return result;
  result.status = std::exchange(next_status_, absl::OkStatus());
  uint32_t prefill = 0;
  for (const Row& row : step.rows) prefill += row.prefill_tokens;
  if (step.rows.size() > max_rows_ || prefill > max_prefill_) {
    result.status = absl::ResourceExhaustedError("out of memory");
  }
  if (!result.status.ok()) {
    for (const Row& row : step.rows) samples_[row.sample].broken = true;
    return result;
  }
  result.weights_time = TakeVariant(step);
  result.device_time += result.weights_time;
  for (const Row& row : step.rows) {
    auto found = samples_.find(row.sample);
    if (found == samples_.end()) {
      Breach("a row of an unknown sample");
      result.rows.emplace_back().sample = row.sample;
      continue;
    }
    result.rows.push_back(ExecuteRow(step, row, found->second));
  }
  return result;
}

uint32_t FakeWorker::VariantAt(const Sample& sample, uint32_t call) const {
  return call * variants_ / std::get<PictureJob>(sample.job).steps;
}

absl::Duration FakeWorker::TakeVariant(const Step& step) {
  if (step.kind != StepKind::kDenoise) return absl::ZeroDuration();
  std::set<uint32_t> needed;
  for (const Row& row : step.rows) {
    auto found = samples_.find(row.sample);
    if (found == samples_.end() || found->second.broken) continue;
    needed.insert(VariantAt(found->second, found->second.steps));
  }
  if (needed.size() > 1) Breach("two variants in one step");
  if (needed.empty()) return absl::ZeroDuration();
  const std::optional<uint32_t> before = std::exchange(variant_, *needed.begin());
  if (!before.has_value() || variant_ == before) return absl::ZeroDuration();
  ++changes_;
  return change_;
}

RowResult FakeWorker::ExecuteRow(const Step& step, const Row& row, Sample& sample) {
  RowResult result;
  result.sample = row.sample;
  if (sample.broken || failing_seed_ == SeedOf(sample.job)) {
    result.status = absl::InternalError("sample: NaN");
    return result;
  }
  if (sample.model != step.model) Breach("a row of another model");
  if (std::holds_alternative<TextJob>(sample.job)) {
    RunTextRow(step, row, sample, result);
  } else {
    Paint(step, row, sample, result);
  }
  if (step.kind == StepKind::kVaeDecode && scores_ && !ScorePromptOf(sample.job).empty()) {
    result.score = ScoreOf(sample.job);
  }
  return result;
}

void FakeWorker::RunTextRow(const Step& step, const Row& row, Sample& sample, RowResult& result) {
  const TextJob& job = std::get<TextJob>(sample.job);
  if (step.kind == StepKind::kText) return WriteText(row, sample, result);
  if (step.kind == StepKind::kPictureEncode) {
    if (job.picture.rgb == nullptr) Breach("no picture to read");
    if (std::exchange(sample.encoded, true)) Breach("read twice");
  } else if (step.kind == StepKind::kVaeDecode) {
    if (!job.paints()) Breach("a text in a picture step");
    if (sample.emitted.size() != job.max_tokens) Breach("decoded too early");
    result.picture = {1, 1, absl::StrJoin(sample.emitted, " ")};
  } else {
    Breach("a text in a picture step");
  }
}

uint32_t FakeWorker::PaddedSource(const Sample& sample) const {
  const uint32_t source = std::get<TextJob>(sample.job).source_tokens;
  const uint32_t size = models_.at(sample.model).page_tokens;
  return (source + size - 1) / size * size;
}

void FakeWorker::CheckSource(const Sample& sample, uint32_t count) {
  const TextJob& job = std::get<TextJob>(sample.job);
  const uint32_t source = PaddedSource(sample);
  if (sample.cached < source && sample.cached + count < source) Breach("a source is cut");
  if (sample.cached < source && job.picture.rgb != nullptr && !sample.encoded) {
    Breach("a picture is run before it is read");
  }
  const uint32_t positions = job.prompt.size() + job.max_tokens - 1;
  const uint32_t size = models_.at(sample.model).page_tokens;
  if (job.paints() && sample.pages.size() * size < positions)
    Breach("pages of a picture come late");
}

void FakeWorker::WriteText(const Row& row, Sample& sample, RowResult& result) {
  const TextJob& job = std::get<TextJob>(sample.job);
  const ModelCapacity& capacity = models_.at(sample.model);
  for (uint32_t page : row.new_pages) {
    if (page >= capacity.pages) Breach("a page out of range");
    sample.pages.push_back(page);
  }
  result.skipped = sample.ended;
  if (sample.ended) return;
  const uint32_t known = job.prompt.size() + sample.emitted.size();
  const uint32_t count = std::max<uint32_t>(1, row.prefill_tokens);
  if (sample.cached + count > known) return Breach("more tokens to run than known");
  if (sample.shared % capacity.page_tokens != 0) return Breach("a part of a page is shared");
  if (row.draft_tokens > 0 && row.prefill_tokens > 0) return Breach("guesses beside a prompt");
  CheckSource(sample, count);
  // As many as may be run, and some of them right: as the text and the place want it.
  const uint32_t most = job.prompt.size() + job.max_tokens - 1;
  const uint32_t guesses = std::min(row.draft_tokens, most - std::min(most, sample.cached + 1));
  uint32_t right = guesses == 0 ? 0 : Mix(job.sampling.seed + known) % (guesses + 1);
  RunTokens(sample, count, guesses);
  if (sample.cached < known) return;
  result.drafted = guesses;
  drafted_ += guesses;
  while (EmitToken(sample, result) && right > 0) {
    --right;
    ++guessed_right_;
    RunTokens(sample, 1, 0);
  }
}

std::pair<ModelId, uint32_t> FakeWorker::SlotOf(const Sample& sample, uint32_t position) {
  const uint32_t size = models_.at(sample.model).page_tokens;
  const uint32_t block = position / size;
  if (block >= sample.pages.size()) Breach("no page for a token");
  const uint32_t page = block < sample.pages.size() ? sample.pages[block] : 0;
  return {sample.model, page * size + position % size};
}

void FakeWorker::RunTokens(Sample& sample, uint32_t known, uint32_t guesses) {
  const TextJob& job = std::get<TextJob>(sample.job);
  const uint32_t end = sample.cached + known;
  // What a source's slots hold depends on all of it.
  uint64_t content = 1;
  for (uint32_t i = 0; i < PaddedSource(sample); ++i) content = Mix(content + job.prompt[i]);
  if (job.picture.rgb != nullptr) content = Mix(content + job.picture.rgb->front());
  for (uint32_t position = 0; position < end; ++position) {
    const uint32_t prompt = job.prompt.size();
    const uint32_t token =
        position < prompt ? job.prompt[position] : sample.emitted[position - prompt];
    content = Mix(content * 31 + token);
    uint64_t& slot = slots_[SlotOf(sample, position)];
    if (position >= sample.cached) slot = content;
    if (slot != content) return Breach("these are not the sample's keys and values");
  }
  for (uint32_t i = 0; i < guesses; ++i) slots_[SlotOf(sample, end + i)] = 0;
  sample.cached = end;
}

bool FakeWorker::EmitToken(Sample& sample, RowResult& result) {
  const TextJob& job = std::get<TextJob>(sample.job);
  const uint32_t id = TokenOf(job, sample.emitted.size());
  sample.emitted.push_back(id);
  sample.ended = sample.emitted.size() == job.max_tokens ||
                 std::find(job.stop_token_ids.begin(), job.stop_token_ids.end(), id) !=
                     job.stop_token_ids.end();
  result.tokens.push_back({id, 0, {}});
  return !sample.ended;
}

void FakeWorker::Paint(const Step& step, const Row& row, Sample& sample, RowResult& result) {
  const PictureJob& job = std::get<PictureJob>(sample.job);
  result.steps_total = job.steps;
  if (step.kind == StepKind::kTextEncode) {
    if (std::exchange(sample.encoded, true)) Breach("encoded twice");
    if (sample.steps == 0) sample.paint = PaintStart(job);
    for (uint32_t call = 0; call < job.steps && variants_ > 1; ++call) {
      const uint32_t variant = VariantAt(sample, call);
      if (!result.variants.empty() && result.variants.back().variant == variant) continue;
      result.variants.push_back({call, variant});
    }
  } else if (step.kind == StepKind::kDenoise) {
    if (!sample.encoded) Breach("denoised before the prompt was encoded");
    if (sample.steps == job.steps) Breach("denoised too often");
    sample.paint = PaintStep(sample.paint, sample.steps++);
    if (row.preview) result.preview = {1, 1, absl::StrCat(sample.paint)};
  } else {
    if (sample.steps != job.steps) Breach("decoded too early");
    result.picture = {1, 1, absl::StrCat(sample.paint)};
  }
  result.steps_done = sample.steps;
}

}  // namespace hanmo::testing
