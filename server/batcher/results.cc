// What came back from a worker.
#include <algorithm>
#include <utility>
#include <variant>
#include <vector>

#include "server/batcher/core.h"

namespace hanmo {
namespace {

bool Contains(const std::vector<uint32_t>& ids, uint32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// One result per row, in order.
bool Matches(const Step& step, const StepResult& result) {
  return std::equal(step.rows.begin(), step.rows.end(), result.rows.begin(), result.rows.end(),
                    [](const Row& a, const RowResult& b) { return a.sample == b.sample; });
}

}  // namespace

Sample* Batcher::Core::Find(SampleHandle handle, const ActiveWorker& worker) const {
  Sample* sample = aboard_.Find(handle);
  return sample != nullptr && sample->worker == &worker ? sample : nullptr;
}

void Batcher::Core::Handle(message::StepDone& done) {
  ActiveWorker* worker = FindWorker(done.worker);
  if (worker == nullptr) return;
  auto& in_flight = worker->in_flight;
  const auto answered = [&](const InFlight& sent) { return sent.step.id == done.result.step; };
  if (std::none_of(in_flight.begin(), in_flight.end(), answered)) return;
  InFlight sent = std::move(in_flight.front());
  in_flight.pop_front();
  worker->outlived = std::max(worker->outlived, sent.sent_after);
  worker->answered = now_;
  if (done.result.memory.free > 0) worker->memory_free = done.result.memory.free;
  if (!sent.follows) done.result.idle_time = absl::ZeroDuration();
  Touch(*worker);
  if (sent.step.id != done.result.step) {
    if (worker->sliced && worker->sliced->id == sent.step.id) {
      if (worker->sliced->at) sent = *std::move(worker->sliced->at);
      worker->sliced.reset();
    }
    FailStep(*worker, sent, absl::InternalError("the worker left a step out"));
    return Handle(done);
  }
  if (FinishSlice(*worker, &sent, &done.result)) return;
  if (!models_.contains(sent.step.model)) return;  // it was removed meanwhile
  // A suspended step whose samples were all dropped is abandoned: that is no failure.
  const bool wanted =
      std::any_of(sent.step.rows.begin(), sent.step.rows.end(),
                  [&](const Row& row) { return Find(row.sample, *worker) != nullptr; });
  if (wanted || done.result.status.ok()) observer_.OnStep(worker->id, sent.step, done.result);
  if (!done.result.status.ok()) {
    FailStep(*worker, sent, done.result.status);
  } else if (!Matches(sent.step, done.result)) {
    FailStep(*worker, sent, absl::InternalError("the worker's rows are not those of the step"));
  } else {
    FinishStep(*worker, sent, done.result);
    std::erase_if(sent.saves,
                  [&](SampleHandle sample) { return Find(sample, *worker) == nullptr; });
    if (!sent.saves.empty()) worker->link->Save(sent.saves);
  }
}

bool Batcher::Core::FinishSlice(ActiveWorker& worker, InFlight* sent, StepResult* result) {
  auto& sliced = worker.sliced;
  const bool current = sliced && sliced->id == sent->step.id;
  if (current) --sliced->unanswered;
  if (!sent->resumes && !result->suspended) {
    if (current) sliced.reset();
    return false;
  }
  const bool lost = result->already_done && current && sliced->unanswered == 0;
  if (!current || (result->already_done && !lost)) {
    worker.shares.pictures -= sent->predicted;
    return true;
  }
  if (lost) result->status = absl::InternalError("the worker lost a suspended step");
  const absl::Duration predicted = sent->predicted;
  if (sent->resumes) *sent = *std::exchange(sliced->at, std::nullopt);
  if (result->suspended) {
    worker.shares.pictures += result->device_time - predicted;
    sent->device_time += result->device_time;
    sent->idle_time += result->idle_time;
    sliced->at = std::move(*sent);
    return true;
  }
  // What is learned and reported is the whole step.
  sent->predicted = predicted + sent->device_time;
  result->device_time += sent->device_time;
  result->idle_time += sent->idle_time;
  sliced.reset();
  return false;
}

void Batcher::Core::FinishStep(ActiveWorker& worker, const InFlight& sent, StepResult& result) {
  StepLoad load = sent.load;
  for (const RowResult& row : result.rows) load.rows += row.drafted;
  Learn(worker, sent, load, result);
  const absl::Duration share = result.device_time / static_cast<int64_t>(result.rows.size());
  for (size_t i = 0; i < result.rows.size(); ++i) {
    RowResult& row = result.rows[i];
    Sample* sample = Find(row.sample, worker);
    if (sample == nullptr) continue;  // cancelled, or begun anew
    sample->request->usage.device_time += share;
    ChargeMemory(sample, sent, load, result.peak_bytes);
    if (!row.status.ok()) {
      EndRequest(sample->request, row.status);
    } else if (!row.skipped) {
      FinishRow(sample, sent.step.kind, sent.step.rows[i], row);
      // It may have ended.
      sample = Find(row.sample, worker);
      if (sample != nullptr && sample->request->sink->full()) HeedReader(sample->request);
    }
  }
}

void Batcher::Core::Learn(ActiveWorker& worker, const InFlight& sent, StepLoad load,
                          const StepResult& result) {
  worker.costs->Learn(sent.cost, load, result.device_time - result.weights_time);
  worker.costs->LearnBytes(sent.cost, load, result.peak_bytes);
  models_[sent.step.model].learned = true;
  const absl::Duration more = result.device_time - sent.predicted;
  (sent.texts > 0 ? worker.shares.text : worker.shares.pictures) += more;
  const auto home = worker.models.find(sent.step.model);
  if (sent.texts > 0 && home != worker.models.end()) home->second.texts_spent += more / sent.texts;
  // The knee may have moved: more samples may run together.
  if (sent.step.kind == StepKind::kDenoise) models_[sent.step.model].stirred = true;
}

void Batcher::Core::ChargeMemory(Sample* sample, const InFlight& sent, StepLoad load,
                                 uint64_t peak_bytes) {
  ActiveRequest& request = *sample->request;
  if (request.weighed_step != sent.step.id) request.step_bytes = 0;
  request.weighed_step = sent.step.id;
  // Rows that read prompts are not among the load's.
  const uint64_t rows = std::max<uint64_t>(load.rows, sent.step.rows.size());
  request.step_bytes += peak_bytes * RowsIn(sent.step.kind, *sample) / rows +
                        sample->table.pages.size() * sample->home->capacity.page_bytes;
  request.usage.peak_bytes = std::max(request.usage.peak_bytes, request.step_bytes);
}

// The last call of each branch may end the sample and its request.
void Batcher::Core::FinishRow(Sample* sample, StepKind kind, const Row& sent, RowResult& row) {
  switch (kind) {
    case StepKind::kTextEncode:
      return FinishEncode(sample, row);
    case StepKind::kDenoise:
      return FinishDenoise(sample, row);
    case StepKind::kVaeDecode:
      return FinishPicture(sample, row);
    case StepKind::kText:
      return FinishText(sample, sent, row);
    case StepKind::kPictureEncode:
      sample->encoded = sample->picture_read = true;
      return Line(sample);
  }
}

void Batcher::Core::FinishEncode(Sample* sample, const RowResult& row) {
  if (row.steps_total == 0 || row.steps_done > row.steps_total) {
    return EndRequest(sample->request,
                      absl::InternalError("the worker did not say how many steps there are"));
  }
  sample->encoded = true;
  sample->steps_total = row.steps_total;
  sample->variants = row.variants;
  sample->planned_steps = row.steps_done;
  Line(sample);
}

void Batcher::Core::FinishDenoise(Sample* sample, RowResult& row) {
  Usage& usage = sample->request->usage;
  if (row.steps_done <= sample->steps_seen) {
    ++usage.steps_redone;
    return;
  }
  usage.steps += row.steps_done - sample->steps_seen;
  sample->steps_seen = row.steps_done;
  if (sample->Progress() >= sample->suspect_until) sample->suspect_until = 0;
  Sink& sink = *sample->request->sink;
  sink.OnStep(sample->index, row.steps_done, sample->steps_total);
  if (row.preview.width > 0) {
    sink.OnPreview(sample->index, row.steps_done, std::move(row.preview));
  }
}

void Batcher::Core::FinishPicture(Sample* sample, RowResult& row) {
  const bool wants_score =
      std::visit([](const auto& job) { return !job.score_prompt.empty(); }, sample->job);
  if (wants_score && !row.score.has_value()) {
    return EndRequest(sample->request, absl::InternalError("the worker did not score the picture"));
  }
  ++sample->request->usage.pictures;
  sample->request->sink->OnPicture(sample->index, std::move(row.picture), row.score);
  EndSample(sample, SampleEnd::kPainted, 0);
}

void Batcher::Core::FinishText(Sample* sample, const Row& sent, const RowResult& row) {
  const TextJob& text = *sample->text();
  const size_t count = row.tokens.size();
  if (count > 1 + sent.draft_tokens || sample->emitted.size() + count > text.max_tokens) {
    return EndRequest(sample->request,
                      absl::InternalError("the worker wrote more tokens than it was asked for"));
  }
  sample->planned_drafts -= sent.draft_tokens;
  sample->cached += sent.prefill_tokens;
  if (count > 0) TakeTokens(sample, row);
  PublishPages(sample);
  if (count == 0) return;  // not the last chunk of a prompt
  if (text.paints()) {
    const auto painted = static_cast<uint32_t>(sample->emitted.size());
    return sample->request->sink->OnStep(sample->index, painted, text.max_tokens);
  }
  const uint32_t id = row.tokens.back().id;
  const bool goes_on = sample->request->sink->OnTokens(sample->index, row.tokens);
  if (Contains(text.stop_token_ids, id)) {
    const bool eos = Contains(text.sampling.eos_token_ids, id);
    EndSample(sample, eos ? SampleEnd::kEos : SampleEnd::kStop, id);
  } else if (!goes_on) {
    EndSample(sample, SampleEnd::kStop, 0);
  } else if (sample->emitted.size() >= text.max_tokens) {
    EndSample(sample, SampleEnd::kLength, 0);
  }
}

void Batcher::Core::TakeTokens(Sample* sample, const RowResult& row) {
  for (const Token& token : row.tokens) {
    sample->emitted.push_back(token.id);
    Usage& usage = sample->request->usage;
    if (sample->text()->paints()) {
      ++usage.steps;
    } else {
      ++usage.completion_tokens;
      NoteToken(sample);
    }
  }
  // All but the last were run.
  sample->cached =
      static_cast<uint32_t>(sample->text()->prompt.size() + sample->emitted.size() - 1);
  if (sample->Progress() >= sample->suspect_until) sample->suspect_until = 0;
  // One was planned; those guessed right come on top.
  const auto guessed = static_cast<uint32_t>(row.tokens.size() - 1);
  sample->planned_cached += guessed;
  sample->planned_tokens += guessed;
  if (guessed > 0) Line(sample);
}

void Batcher::Core::NoteToken(Sample* sample) {
  const ActiveRequest& request = *sample->request;
  if (sample->last_token == absl::InfinitePast()) {
    observer_.OnPrefill(request.model, now_ - sample->prefill_start, sample->known_tokens);
    observer_.OnFirstToken(request.model, now_ - request.arrival);
    sample->first_token = now_;
  } else {
    observer_.OnInterToken(request.model, now_ - sample->last_token);
  }
  sample->last_token = now_;
}

void Batcher::Core::EndSample(Sample* sample, SampleEnd end, uint32_t stop_id) {
  ActiveRequest* request = sample->request;
  if (const TextJob* text = sample->text(); text != nullptr && !text->paints()) {
    const auto tokens = static_cast<uint32_t>(sample->emitted.size());
    sample->worker->costs->LearnLength(request->model, tokens);
    observer_.OnTextEnd(request->model, {end, static_cast<uint32_t>(text->prompt.size()), tokens,
                                         sample->last_token - sample->first_token});
  }
  Leave(sample);
  sample->state = SampleState::kEnded;
  request->sink->OnSampleEnd(sample->index, end, stop_id);
  if (--request->live == 0) EndRequest(request, absl::OkStatus());
}

void Batcher::Core::Handle(message::Saved& saved) {
  ActiveWorker* worker = FindWorker(saved.worker);
  Sample* sample = worker == nullptr ? nullptr : Find(saved.save_point.sample, *worker);
  if (sample == nullptr || saved.save_point.steps_done <= sample->saved_steps) return;
  sample->saved_steps = saved.save_point.steps_done;
  sample->save_point = std::move(saved.save_point.bytes);
}

}  // namespace hanmo
