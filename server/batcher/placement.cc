// Which sample begins on which worker, and when it gives its place back.
#include <algorithm>
#include <iterator>
#include <utility>

#include "server/batcher/core.h"

namespace hanmo {
namespace {

// An idle worker, from which nothing is heard, is taken for living so long after another's death.
constexpr absl::Duration kDoubt = absl::Seconds(1);

// Of the workers that have a model so many are looked at for one sample, the least loaded first: a
// tick must not grow with the fleet.
constexpr size_t kWorkersLookedAt = 16;

// Requests behind the first that may fill a batch of another size.
constexpr size_t kPassedOver = 16;

// Published pages of one model that are kept without a user.
uint32_t IdlePages(uint64_t bytes, const ModelCapacity& capacity) {
  if (capacity.page_bytes == 0) return 0;
  return static_cast<uint32_t>(std::min<uint64_t>(bytes / capacity.page_bytes, capacity.pages));
}

// What a sample adds to its worker's load; something even when no cost is known.
double LoadOf(const Sample& sample) {
  const ActiveRequest& request = *sample.request;
  return 1e-3 + absl::ToDoubleSeconds(request.cost) / static_cast<double>(request.samples.size());
}

// One call of a diffusers pipeline has one of each of these for all its pictures.
bool SameCall(const Sample& a, const Sample& b) {
  const PictureJob* x = a.picture();
  const PictureJob* y = b.picture();
  if (x == nullptr || y == nullptr) return x == y;
  return x->width == y->width && x->height == y->height && x->steps == y->steps &&
         x->guidance == y->guidance && x->sampler == y->sampler;
}

}  // namespace

void Batcher::Core::Handle(message::AddWorker& added) {
  message::WorkerLost before{added.worker};
  Handle(before);
  auto worker = std::make_unique<ActiveWorker>();
  worker->id = added.worker;
  worker->link = std::move(added.link);
  worker->costs = &costs_[added.device];
  worker->outlived = deaths_;
  workers_[added.worker] = std::move(worker);
}

void Batcher::Core::Handle(message::ModelReady& ready) {
  ActiveWorker* worker = FindWorker(ready.worker);
  if (worker == nullptr) return;
  Residence home;
  home.capacity = ready.capacity;
  home.pages = PagePool({.pages = ready.capacity.pages,
                         .page_tokens = ready.capacity.page_tokens,
                         .max_idle = IdlePages(options_.prefix_cache_bytes, ready.capacity)});
  home.listed_load = worker->load;
  if (!worker->models.emplace(ready.model, std::move(home)).second) return;
  ModelQueue& queue = models_[ready.model];
  queue.places.insert({worker->load, worker->id});
  if (queue.places.size() == 1) queue.costs = worker->costs;
  queue.ever_ready = queue.stirred = true;
  queue.failed = false;
  Touch(*worker);
}

void Batcher::Core::Handle(message::RemoveModel& remove) {
  EndRequests(remove.model, absl::UnavailableError("the model is not served any more"));
  TakeFromWorkers(remove.model);
  for (auto& [id, worker] : workers_) {
    absl::erase_if(worker->most_samples,
                   [&](const auto& entry) { return entry.first.model == remove.model; });
  }
  for (auto& [device, costs] : costs_) costs.Forget(remove.model);
  models_.erase(remove.model);
  remove.removed();
}

void Batcher::Core::Handle(message::InheritCosts& inherit) {
  for (auto& [device, costs] : costs_) costs.Copy(inherit.from, inherit.to);
}

void Batcher::Core::Handle(message::RestModel& rest) {
  ModelQueue& queue = models_[rest.model];
  if (queue.queued + queue.running > 0) return rest.done(false);
  TakeFromWorkers(rest.model);
  queue.wanted = std::move(rest.wanted);
  // It may never have been on a worker.
  queue.ever_ready = true;
  if (queue.costs == nullptr) queue.costs = &costs_[""];
  rest.done(true);
}

void Batcher::Core::TakeFromWorkers(ModelId model) {
  for (auto& [id, worker] : workers_) {
    auto home = worker->models.find(model);
    if (home == worker->models.end()) continue;
    if (home->second.pages.total() > 0) observer_.OnPages(id, model, 0, 0);
    worker->models.erase(home);
    // Another version of it may be there, whose pages are told anew.
    for (auto& [other, residence] : worker->models) residence.reported_pages = UINT32_MAX;
    Touch(*worker);
  }
  models_[model].places.clear();
}

void Batcher::Core::Handle(message::Wake& wake) {
  auto found = requests_.find(wake.id);
  if (found == requests_.end()) return;
  HeedReader(found->second.get());
}

void Batcher::Core::HeedReader(ActiveRequest* request) {
  const bool full = request->sink->full();
  for (auto& owned : request->samples) {
    Sample* sample = owned.get();
    if (!full && sample->state == SampleState::kHeld) Return(sample);
    if (sample->state != SampleState::kAboard || sample->parked() == full) continue;
    sample->parked_since = full ? now_ : absl::InfiniteFuture();
    if (full) parked_.emplace_back(now_ + options_.max_parked, sample->handle);
    Line(sample);
    Touch(*sample->worker);
    models_[request->model].stirred = true;
  }
}

void Batcher::Core::GiveBackParked() {
  while (!parked_.empty() && parked_.front().first <= now_) {
    const auto [until, handle] = parked_.front();
    parked_.pop_front();
    Sample* sample = aboard_.Find(handle);
    if (sample == nullptr) continue;
    // It may have gone on and been parked again since.
    if (!sample->parked() || sample->parked_since + options_.max_parked != until) continue;
    Leave(sample);
    Return(sample);
  }
}

void Batcher::Core::BeginSamples(ModelQueue& queue) {
  queue.stirred = false;
  auto& returning = queue.returning;
  for (size_t i = 0; i < returning.size();) {
    if (BeginOne(returning[i], queue)) {
      returning.erase(returning.begin() + i);
    } else if (returning[i]->suspect()) {
      ++i;  // the others need not wait until a worker is trusted
    } else {
      return;
    }
  }
  if (!returning.empty()) return;
  // A batch of equal ones has to look further.
  const size_t most_passed_over =
      options_.policy.policy == Policy::kStatic ? SIZE_MAX : kPassedOver;
  size_t passed_over = 0;
  for (auto it = queue.waiting.begin(); it != queue.waiting.end();) {
    ActiveRequest* request = it->second;
    const Sample& next = *request->samples[request->next_to_begin];
    if (!BeginOne(request->samples[request->next_to_begin].get(), queue)) {
      // Texts that come later have no better claim; pictures may be of another size.
      if (next.text() != nullptr || ++passed_over > most_passed_over) break;
      ++it;
      continue;
    }
    if (request->queued()) {
      --queue.queued;
      --queued_;
      queued_work_ -= request->cost;
      queue.queued_work -= request->cost;
      ++queue.running;
      queue.changed = true;
    }
    ++request->next_to_begin;
    if (request->waiting()) continue;
    it = queue.waiting.erase(it);
    queue.moved = true;
  }
  if (options_.policy.policy != Policy::kStatic) return;
  for (const auto& [load, id] : queue.places) {
    ActiveWorker& worker = *workers_.at(id);
    worker.closed = !worker.aboard.empty();
  }
}

bool Batcher::Core::BeginOne(Sample* sample, ModelQueue& queue) {
  ActiveWorker* worker = ChooseWorker(*sample, queue);
  if (worker == nullptr) return false;
  SendBegin(sample, worker);
  return true;
}

ActiveWorker* Batcher::Core::ChooseWorker(const Sample& sample, ModelQueue& queue) {
  size_t looked_at = 0;
  ActiveWorker* best = nullptr;
  double best_seconds = 0;
  for (const auto& [load, id] : queue.places) {
    if (++looked_at > kWorkersLookedAt || (best != nullptr && load >= best_seconds)) break;
    ActiveWorker& worker = *workers_.at(id);
    const Residence& home = worker.models.at(sample.request->model);
    if (!HasRoom(worker, home, sample) || !Trusts(worker, sample)) continue;
    // A busier worker may have less to do for it.
    const double seconds = load + PrefillSeconds(worker, home, sample);
    if (best != nullptr && seconds >= best_seconds) continue;
    best = &worker;
    best_seconds = seconds;
  }
  return best;
}

bool Batcher::Core::HasRoom(const ActiveWorker& worker, const Residence& home,
                            const Sample& sample) {
  if (home.aboard >= options_.max_running_samples) return false;
  if (options_.policy.policy == Policy::kStatic && !Gathers(worker, sample)) return false;
  return sample.text() != nullptr ? HasPages(worker, home, sample) : WouldRun(worker, sample);
}

bool Batcher::Core::WouldRun(const ActiveWorker& worker, const Sample& sample) const {
  if (sample.suspect()) return true;
  const PictureJob& job = *sample.picture();
  const uint32_t most =
      MostRows(worker, {sample.request->model, StepKind::kDenoise, job.width, job.height, 0});
  uint32_t rows = 0;
  for (const Sample* other : worker.aboard) {
    const PictureJob* picture = other->picture();
    if (picture == nullptr || other->denoised() || other->parked()) continue;
    if (picture->width != job.width || picture->height != job.height) continue;
    if (GoesBefore(&sample, other)) break;
    rows += RowsOf(*picture);
  }
  return rows == 0 || rows + RowsOf(job) <= most;
}

bool Batcher::Core::Gathers(const ActiveWorker& worker, const Sample& sample) const {
  if (worker.closed) return false;
  return std::all_of(worker.aboard.begin(), worker.aboard.end(), [&](const Sample* other) {
    return other->request->model == sample.request->model && SameCall(*other, sample);
  });
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
  sample->handle = aboard_.Add(sample);
  sample->worker = worker;
  sample->home = &home;
  sample->begun_after = deaths_;
  sample->planned_cached = sample->cached = 0;
  sample->planned_drafts = 0;
  sample->pages_sent = 0;
  sample->planned_encode = sample->picture_read = sample->planned_decode = false;
  sample->steps_total = 0;
  sample->planned_steps = sample->saved_steps;
  sample->planned_tokens = static_cast<uint32_t>(sample->emitted.size());
  Resume resume;
  if (sample->text() != nullptr) {
    TakeFirstPages(sample);
    resume.emitted = sample->emitted;
    resume.cached_tokens = sample->cached;
  } else {
    resume.save_point = sample->save_point;
  }
  ++home.aboard;
  InsertByRank(sample, worker->aboard);
  AddLoad(*worker, LoadOf(*sample));
  Touch(*worker);
  Line(sample);
  worker->link->Begin(sample->handle, model, sample->job, std::move(resume));
  if (sample->request->sink->full()) HeedReader(sample->request);
}

void Batcher::Core::Leave(Sample* sample) {
  ActiveWorker& worker = *sample->worker;
  Unline(sample);
  Residence& home = *sample->home;
  home.pages.Return(&sample->table);
  --home.aboard;
  Remove(sample, worker.aboard);
  if (worker.aboard.empty()) worker.closed = false;
  worker.drops.push_back(sample->handle);
  aboard_.Remove(sample->handle);
  AddLoad(worker, -LoadOf(*sample));
  Touch(worker);
  // With one text model's pages or places another model has nothing to do, but with its time.
  for (const auto& [model, other] : worker.models) models_[model].stirred = true;
  sample->worker = nullptr;
  sample->home = nullptr;
  sample->parked_since = absl::InfiniteFuture();
}

void Batcher::Core::Return(Sample* sample) {
  if (sample->request->sink->full()) {
    sample->state = SampleState::kHeld;
    return;
  }
  sample->state = SampleState::kReturning;
  ModelQueue& queue = models_[sample->request->model];
  InsertByRank(sample, queue.returning);
  queue.stirred = true;
}

void Batcher::Core::SendDrops(ActiveWorker& worker) {
  if (worker.drops.empty()) return;
  worker.link->Drop(worker.drops);
  worker.drops.clear();
}

void Batcher::Core::AddLoad(ActiveWorker& worker, double seconds) {
  worker.load = worker.aboard.empty() ? 0 : std::max(0.0, worker.load + seconds);
  for (auto& [model, home] : worker.models) {
    auto& places = models_[model].places;
    places.erase({home.listed_load, worker.id});
    places.insert({worker.load, worker.id});
    home.listed_load = worker.load;
  }
}

void Batcher::Core::Touch(ActiveWorker& worker) {
  if (worker.listed) return;
  worker.listed = true;
  touched_.push_back(worker.id);
}

}  // namespace hanmo
