// What came back from a worker.
#include <algorithm>
#include <utility>

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
  auto found = aboard_.find(handle);
  return found == aboard_.end() || found->second->worker != &worker ? nullptr : found->second;
}

void Batcher::Core::Handle(message::StepDone& done) {
  ActiveWorker* worker = FindWorker(done.worker);
  if (worker == nullptr) return;
  auto& in_flight = worker->in_flight;
  if (in_flight.empty() || in_flight.front().step.id > done.result.step) return;
  const InFlight sent = std::move(in_flight.front());
  in_flight.pop_front();
  worker->outlived = std::max(worker->outlived, sent.sent_after);
  Touch(*worker);
  if (sent.step.id != done.result.step) {
    FailStep(*worker, sent, absl::InternalError("the worker left a step out"));
    return Handle(done);
  }
  observer_.OnStep(worker->id, sent.step, done.result);
  if (!done.result.status.ok()) {
    FailStep(*worker, sent, done.result.status);
  } else if (!Matches(sent.step, done.result)) {
    FailStep(*worker, sent, absl::InternalError("the worker's rows are not those of the step"));
  } else {
    FinishStep(*worker, sent, done.result);
  }
}

void Batcher::Core::FinishStep(ActiveWorker& worker, const InFlight& sent, StepResult& result) {
  Learn(worker, sent, result.device_time);
  const absl::Duration share = result.device_time / static_cast<int64_t>(result.rows.size());
  for (RowResult& row : result.rows) {
    Sample* sample = Find(row.sample, worker);
    if (sample == nullptr) continue;  // cancelled, or begun anew
    sample->request->usage.device_time += share;
    if (!row.status.ok()) {
      EndRequest(sample->request, row.status);
    } else if (!row.skipped) {
      FinishRow(sample, sent.step.kind, row);
      // It may have ended.
      sample = Find(row.sample, worker);
      if (sample != nullptr && sample->request->sink->full()) HeedReader(sample->request);
    }
  }
}

void Batcher::Core::Learn(ActiveWorker& worker, const InFlight& sent, absl::Duration time) {
  worker.costs->Learn(sent.cost, sent.load, time);
  absl::Duration& share =
      sent.step.kind == StepKind::kText ? worker.shares.text : worker.shares.pictures;
  share += time - sent.predicted;
  // The knee may have moved: more samples may run together.
  if (sent.step.kind == StepKind::kDenoise) models_[sent.step.model].stirred = true;
}

// The last call of each branch may end the sample and its request.
void Batcher::Core::FinishRow(Sample* sample, StepKind kind, RowResult& row) {
  switch (kind) {
    case StepKind::kTextEncode:
      return FinishEncode(sample, row);
    case StepKind::kDenoise:
      return FinishDenoise(sample, row);
    case StepKind::kVaeDecode:
      return FinishPicture(sample, row);
    case StepKind::kText:
      return FinishText(sample, row);
  }
}

void Batcher::Core::FinishEncode(Sample* sample, const RowResult& row) {
  if (row.steps_total == 0 || row.steps_done > row.steps_total) {
    return EndRequest(sample->request,
                      absl::InternalError("the worker did not say how many steps there are"));
  }
  sample->encoded = true;
  sample->steps_total = row.steps_total;
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
  ++sample->request->usage.pictures;
  sample->request->sink->OnPicture(sample->index, std::move(row.picture));
  EndSample(sample, SampleEnd::kPainted, 0);
}

void Batcher::Core::FinishText(Sample* sample, const RowResult& row) {
  if (row.tokens.empty()) return;  // not the last chunk of a prompt
  const TextJob& text = *sample->text();
  const uint32_t id = row.tokens.back().id;
  for (const Token& token : row.tokens) {
    sample->emitted.push_back(token.id);
    ++sample->request->usage.completion_tokens;
    NoteToken(sample);
  }
  if (sample->Progress() >= sample->suspect_until) sample->suspect_until = 0;
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

void Batcher::Core::NoteToken(Sample* sample) {
  const ActiveRequest& request = *sample->request;
  if (sample->last_token == absl::InfinitePast()) {
    observer_.OnPrefill(request.model, now_ - sample->prefill_start, sample->known_tokens);
    observer_.OnFirstToken(request.model, now_ - request.arrival);
  } else {
    observer_.OnInterToken(request.model, now_ - sample->last_token);
  }
  sample->last_token = now_;
}

void Batcher::Core::EndSample(Sample* sample, SampleEnd end, uint32_t stop_id) {
  ActiveRequest* request = sample->request;
  if (sample->text() != nullptr) {
    sample->worker->costs->LearnLength(request->model,
                                       static_cast<uint32_t>(sample->emitted.size()));
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
