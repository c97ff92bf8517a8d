// Which sample begins on which worker, and when it gives its place back.
#include <algorithm>
#include <tuple>
#include <utility>

#include "server/batcher/core.h"

namespace hanmo {
namespace {

// An idle worker, from which nothing is heard, is taken for living so long after another's death.
constexpr absl::Duration kDoubt = absl::Seconds(1);

uint32_t PagesFor(size_t tokens, uint32_t page_tokens) {
  if (page_tokens == 0) return 0;  // no text model: the worker will say so
  return static_cast<uint32_t>((tokens + page_tokens - 1) / page_tokens);
}

bool Earlier(const Sample* a, const Sample* b) {
  return std::make_tuple(a->request->arrival, a->request->id, a->index) <
         std::make_tuple(b->request->arrival, b->request->id, b->index);
}

void InsertByArrival(Sample* sample, std::vector<Sample*>& samples) {
  samples.insert(std::upper_bound(samples.begin(), samples.end(), sample, Earlier), sample);
}

}  // namespace

void Batcher::Core::Handle(message::AddWorker& added) {
  message::WorkerLost before{added.worker};
  Handle(before);
  auto worker = std::make_unique<ActiveWorker>();
  worker->id = added.worker;
  worker->link = std::move(added.link);
  worker->outlived = deaths_;
  workers_[added.worker] = std::move(worker);
}

void Batcher::Core::Handle(message::ModelReady& ready) {
  ActiveWorker* worker = FindWorker(ready.worker);
  if (worker == nullptr) return;
  Residence home;
  home.capacity = ready.capacity;
  home.pages = PagePool(ready.capacity.pages);
  worker->models.emplace(ready.model, std::move(home));
  ModelQueue& queue = models_[ready.model];
  queue.ever_ready = true;
  queue.failed = false;
}

void Batcher::Core::Handle(message::Wake& wake) {
  auto found = requests_.find(wake.id);
  if (found == requests_.end() || found->second->sink->full()) return;
  for (auto& sample : found->second->samples) {
    if (sample->state == SampleState::kHeld) Return(sample.get());
  }
}

void Batcher::Core::BeginSamples(ModelId model, ModelQueue& queue) {
  auto& returning = queue.returning;
  for (size_t i = 0; i < returning.size();) {
    if (BeginOne(returning[i], model)) {
      returning.erase(returning.begin() + i);
    } else if (returning[i]->suspect()) {
      ++i;  // the others need not wait until a worker is trusted
    } else {
      return;
    }
  }
  if (!returning.empty()) return;
  while (!queue.waiting.empty()) {
    ActiveRequest* request = queue.waiting.front();
    if (!BeginOne(request->samples[request->next_to_begin].get(), model)) return;
    if (request->queued()) {
      --queue.queued;
      --queued_;
      ++queue.running;
      queue.changed = true;
    }
    if (++request->next_to_begin < request->samples.size()) continue;
    queue.waiting.pop_front();
    queue.moved = true;
  }
}

bool Batcher::Core::BeginOne(Sample* sample, ModelId model) {
  ActiveWorker* worker = ChooseWorker(*sample, model);
  if (worker == nullptr) return false;
  SendBegin(sample, worker);
  return true;
}

ActiveWorker* Batcher::Core::ChooseWorker(const Sample& sample, ModelId model) {
  ActiveWorker* best = nullptr;
  for (auto& [id, worker] : workers_) {
    auto home = worker->models.find(model);
    if (home == worker->models.end() || !HasRoom(home->second, sample)) continue;
    if (!Trusts(*worker, sample)) continue;
    const auto load = [](const ActiveWorker& w) { return std::make_pair(w.aboard.size(), w.id); };
    if (best == nullptr || load(*worker) < load(*best)) best = worker.get();
  }
  return best;
}

bool Batcher::Core::HasRoom(const Residence& home, const Sample& sample) const {
  if (home.aboard >= options_.max_running_samples) return false;
  const TextJob* text = sample.text();
  if (text == nullptr || home.aboard == 0) return true;
  // A spare page for each text aboard: whoever comes in must not push another out at once.
  const uint32_t pages =
      PagesFor(text->prompt.size() + sample.emitted.size() + 1, home.capacity.page_tokens);
  return home.pages.free() >= pages + home.aboard;
}

// Workers may be killed together, and the batcher learns it one by one. A suspect that moved to the
// next dead one in between would seem to have killed both.
bool Batcher::Core::Trusts(const ActiveWorker& worker, const Sample& sample) {
  if (!sample.suspect() || worker.outlived >= sample.request->last_death) return true;
  const absl::Time until = last_death_ + kDoubt;
  if (now_ >= until) return true;
  next_change_ = std::min(next_change_, until);
  return false;
}

void Batcher::Core::SendBegin(Sample* sample, ActiveWorker* worker) {
  const ModelId model = sample->request->model;
  Residence& home = worker->models.at(model);
  sample->state = SampleState::kAboard;
  sample->handle = next_handle_++;
  sample->worker = worker;
  sample->served = 0;
  sample->begun_after = deaths_;
  sample->planned_cached = 0;
  sample->pages_sent = 0;
  sample->planned_encode = sample->planned_decode = false;
  sample->steps_total = 0;
  sample->planned_steps = sample->saved_steps;
  sample->planned_tokens = static_cast<uint32_t>(sample->emitted.size());
  Resume resume;
  if (const TextJob* text = sample->text()) {
    sample->known_tokens = static_cast<uint32_t>(text->prompt.size() + sample->emitted.size());
    home.pages.Take(PagesFor(sample->known_tokens, home.capacity.page_tokens), &sample->pages);
    resume.emitted = sample->emitted;
  } else {
    resume.save_point = sample->save_point;
  }
  ++home.aboard;
  InsertByArrival(sample, worker->aboard);
  aboard_.emplace(sample->handle, sample);
  worker->link->Begin(sample->handle, model, sample->job, std::move(resume));
}

void Batcher::Core::Leave(Sample* sample) {
  ActiveWorker& worker = *sample->worker;
  Residence& home = worker.models.at(sample->request->model);
  home.pages.Return(&sample->pages);
  --home.aboard;
  worker.aboard.erase(std::find(worker.aboard.begin(), worker.aboard.end(), sample));
  worker.drops.push_back(sample->handle);
  aboard_.erase(sample->handle);
  sample->worker = nullptr;
  sample->parked_since = absl::InfiniteFuture();
}

void Batcher::Core::Return(Sample* sample) {
  if (sample->request->sink->full()) {
    sample->state = SampleState::kHeld;
    return;
  }
  sample->state = SampleState::kReturning;
  InsertByArrival(sample, models_[sample->request->model].returning);
}

void Batcher::Core::SendDrops(ActiveWorker& worker) {
  if (worker.drops.empty()) return;
  worker.link->Drop(worker.drops);
  worker.drops.clear();
}

void Batcher::Core::GiveBackParked(ActiveWorker& worker) {
  for (size_t i = worker.aboard.size(); i > 0; --i) {
    Sample* sample = worker.aboard[i - 1];
    if (!sample->request->sink->full()) {
      sample->parked_since = absl::InfiniteFuture();
      continue;
    }
    sample->parked_since = std::min(sample->parked_since, now_);
    const absl::Time until = sample->parked_since + options_.max_parked;
    if (now_ < until) {
      next_change_ = std::min(next_change_, until);
    } else {
      Leave(sample);
      Return(sample);
    }
  }
}

}  // namespace hanmo
