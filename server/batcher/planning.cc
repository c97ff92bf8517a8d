// Which step runs next on a worker, and with whom.
#include <algorithm>
#include <optional>
#include <utility>

#include "server/batcher/core.h"

namespace hanmo {
namespace {

// More keys than this are not in use at once; the one served longest ago is forgotten.
constexpr size_t kMaxServedKeys = 64;

bool Prefills(const Sample& sample) { return sample.planned_cached < sample.known_tokens; }

// The batch that takes the sample further; nothing while it must wait for a result.
std::optional<BatchKey> NextBatch(const Sample& sample) {
  if (sample.parked()) return std::nullopt;
  BatchKey key;
  key.model = sample.request->model;
  key.alone = sample.suspect() ? sample.handle : 0;
  if (const TextJob* text = sample.text()) {
    key.kind = StepKind::kText;
    if (Prefills(sample) || sample.planned_tokens < text->max_tokens) return key;
    return std::nullopt;
  }
  const PictureJob& picture = *sample.picture();
  if (!sample.planned_encode) {
    key.kind = StepKind::kTextEncode;
    return key;
  }
  if (sample.steps_total == 0 || sample.planned_decode) return std::nullopt;
  key.width = picture.width;
  key.height = picture.height;
  key.kind = sample.planned_steps < sample.steps_total ? StepKind::kDenoise : StepKind::kVaeDecode;
  return key;
}

uint64_t LastServed(const ActiveWorker& worker, const Sample& sample, const BatchKey& key) {
  if (key.alone != 0) return sample.served;
  for (const auto& [served, step] : worker.served) {
    if (served == key) return step;
  }
  return 0;
}

void NoteServed(ActiveWorker& worker, const BatchKey& key, uint64_t step) {
  auto& served = worker.served;
  const auto same = [&](const auto& entry) { return entry.first == key; };
  auto found = std::find_if(served.begin(), served.end(), same);
  if (found == served.end()) {
    if (served.size() == kMaxServedKeys) {
      const auto older = [](const auto& a, const auto& b) { return a.second < b.second; };
      served.erase(std::min_element(served.begin(), served.end(), older));
    }
    found = served.insert(served.end(), {key, 0});
  }
  found->second = step;
}

bool WantsPreview(const PictureJob& job, const Sample& sample) {
  return job.preview_every_steps > 0 && sample.planned_steps % job.preview_every_steps == 0 &&
         sample.planned_steps > sample.steps_seen && sample.planned_steps < sample.steps_total;
}

}  // namespace

void Batcher::Core::Plan(ActiveWorker& worker) {
  while (worker.in_flight.size() < options_.steps_in_flight) {
    if (!worker.in_flight.empty() && worker.in_flight.back().alone) return;
    CollectGroups(worker);
    if (groups_.empty()) return;
    const Group& group = groups_[ChooseGroup(groups_)];
    // A suspect waits until the steps of the others are back.
    if (group.key.alone != 0 && !worker.in_flight.empty()) return;
    SendStep(worker, group);
  }
}

void Batcher::Core::CollectGroups(const ActiveWorker& worker) {
  groups_.clear();
  for (const Sample* sample : worker.aboard) {
    const std::optional<BatchKey> key = NextBatch(*sample);
    if (!key.has_value()) continue;
    const auto same = [&](const Group& group) { return group.key == *key; };
    auto group = std::find_if(groups_.begin(), groups_.end(), same);
    if (group == groups_.end()) {
      Group fresh;
      fresh.key = *key;
      fresh.oldest_arrival = sample->request->arrival;
      fresh.last_served = LastServed(worker, *sample, *key);
      group = groups_.insert(groups_.end(), fresh);
    }
    ++group->rows;
  }
}

void Batcher::Core::SendStep(ActiveWorker& worker, const Group& group) {
  const BatchKey& key = group.key;
  const size_t max_batch = worker.models.at(key.model).capacity.max_batch;
  Step step;
  step.id = worker.next_step++;
  step.model = key.model;
  step.kind = key.kind;
  if (key.kind == StepKind::kText) {
    step.rows.reserve(std::min<size_t>(max_batch, group.rows));
    // First those that a reader watches.
    AddDecodeRows(worker, key, max_batch, step);
    AddPrefillRows(worker, key, max_batch, step);
  } else {
    AddPictureRows(worker, key, std::min<size_t>(max_batch, options_.max_picture_batch), step);
  }
  // The only one that could run made room for others: they may run now.
  if (step.rows.empty()) return;
  if (key.alone == 0) NoteServed(worker, key, step.id);
  worker.in_flight.push_back({step, key.alone != 0, deaths_});
  worker.link->Run(std::move(step));
  if (!saves_.empty()) worker.link->Save(saves_);
  saves_.clear();
}

void Batcher::Core::AddPictureRows(ActiveWorker& worker, const BatchKey& key, size_t limit,
                                   Step& step) {
  for (Sample* sample : worker.aboard) {
    if (step.rows.size() == limit) return;
    if (NextBatch(*sample) != key) continue;
    Row row;
    row.sample = sample->handle;
    sample->served = step.id;
    if (key.kind == StepKind::kTextEncode) sample->planned_encode = true;
    if (key.kind == StepKind::kVaeDecode) sample->planned_decode = true;
    if (key.kind == StepKind::kDenoise) {
      ++sample->planned_steps;
      row.preview = WantsPreview(*sample->picture(), *sample);
      if (sample->planned_steps % options_.save_interval_steps == 0 &&
          sample->planned_steps < sample->steps_total) {
        saves_.push_back(sample->handle);
      }
    }
    NoteStarted(sample->request);
    step.rows.push_back(std::move(row));
  }
}

void Batcher::Core::AddDecodeRows(ActiveWorker& worker, const BatchKey& key, size_t limit,
                                  Step& step) {
  Residence& home = worker.models.at(key.model);
  decoding_.clear();
  for (Sample* sample : worker.aboard) {
    if (!Prefills(*sample) && NextBatch(*sample) == key) decoding_.push_back(sample);
  }
  for (Sample* sample : decoding_) {
    if (step.rows.size() == limit) return;
    // Whoever makes room comes after the one who needs it, or is parked: no row is lost.
    if (sample->state != SampleState::kAboard) continue;
    if (TakePage(worker, home, sample)) AddTextRow(sample, 0, step);
  }
}

void Batcher::Core::AddPrefillRows(ActiveWorker& worker, const BatchKey& key, size_t limit,
                                   Step& step) {
  uint32_t budget = options_.prefill_chunk_tokens;
  for (Sample* sample : worker.aboard) {
    if (step.rows.size() == limit || budget == 0) return;
    if (!Prefills(*sample) || NextBatch(*sample) != key) continue;
    if (sample->planned_cached == 0) sample->prefill_start = now_;
    const uint32_t chunk = std::min(budget, sample->known_tokens - sample->planned_cached);
    budget -= chunk;
    AddTextRow(sample, chunk, step);
  }
}

void Batcher::Core::AddTextRow(Sample* sample, uint32_t prefill_tokens, Step& step) {
  Row row;
  row.sample = sample->handle;
  row.prefill_tokens = prefill_tokens;
  row.new_pages.assign(sample->pages.begin() + sample->pages_sent, sample->pages.end());
  sample->pages_sent = sample->pages.size();
  sample->served = step.id;
  sample->planned_cached += std::max<uint32_t>(1, prefill_tokens);
  if (!Prefills(*sample)) ++sample->planned_tokens;
  NoteStarted(sample->request);
  step.rows.push_back(std::move(row));
}

bool Batcher::Core::TakePage(ActiveWorker& worker, Residence& home, Sample* sample) {
  const size_t tokens = sample->pages.size() * home.capacity.page_tokens;
  if (sample->planned_cached < tokens || home.capacity.page_tokens == 0) return true;
  const auto& aboard = worker.aboard;
  const auto has_pages = [&](const Sample* s) {
    return s == sample || (s->request->model == sample->request->model && !s->pages.empty());
  };
  const auto idles = [&](const Sample* s) { return s->parked() && has_pages(s); };
  while (!home.pages.Take(1, &sample->pages)) {
    // Of those whose reader is slow, else of all, the youngest is recomputed later.
    auto victim = std::find_if(aboard.rbegin(), aboard.rend(), idles);
    if (victim == aboard.rend()) victim = std::find_if(aboard.rbegin(), aboard.rend(), has_pages);
    Sample* leaving = *victim;
    Leave(leaving);
    Return(leaving);
    if (leaving == sample) return false;
  }
  return true;
}

void Batcher::Core::NoteStarted(ActiveRequest* request) {
  if (request->started) return;
  request->started = true;
  request->usage.queue_time = now_ - request->arrival;
  observer_.OnStarted(request->model, request->usage.queue_time);
}

}  // namespace hanmo
