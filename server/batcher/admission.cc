// Into the queue, out of it, and every end of a request.
#include <algorithm>
#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "server/batcher/core.h"

namespace hanmo {
namespace {

// Positions further back are told at admission only, so that a tick never walks the whole queue.
constexpr uint32_t kToldPositions = 32;

// Predictions of a request's own time are not promises: what misses its deadline by more than this
// is given up.
constexpr double kDoubtful = 0.8;

// Requests looked at to find out what is ahead of a new one with a deadline.
constexpr size_t kRequestsLookedAt = 1024;

absl::Duration Rounded(absl::Duration time) { return absl::Trunc(time, absl::Milliseconds(1)); }

absl::Status RetryAfter(absl::Status status, absl::Duration time) {
  time = std::clamp(time, absl::Milliseconds(100), absl::Seconds(60));
  const std::string ms = absl::StrCat(absl::ToInt64Milliseconds(time));
  status.SetPayload(kRetryAfterMs, absl::Cord(absl::string_view(ms)));
  return status;
}

}  // namespace

void Batcher::Core::Handle(message::Submit& submit) {
  if (draining_) {
    return Refuse(submit, Rejection::kDraining,
                  absl::UnavailableError("the server is shutting down"));
  }
  if (!Serves(submit.request.model)) {
    return Refuse(submit, Rejection::kNoWorker,
                  absl::UnavailableError("no worker serves the model now"));
  }
  if (submit.request.deadline <= now_) {
    return Refuse(submit, Rejection::kDeadline,
                  absl::DeadlineExceededError("the deadline passed before the request was queued"));
  }
  const auto full = [this] {
    return queued_ >= options_.max_queued_requests || QueuedWork() >= options_.max_queued_work;
  };
  if (full()) {
    // What came in this same tick may fit beside the running ones.
    for (auto& [model, queue] : models_) BeginSamples(queue);
  }
  if (full()) {
    return Refuse(
        submit, Rejection::kQueueFull,
        RetryAfter(absl::ResourceExhaustedError(absl::StrCat(
                       "the queue is full: ", queued_, " requests of ",
                       absl::FormatDuration(Rounded(QueuedWork())), " of work are waiting")),
                   QueuedWork() / std::max<uint32_t>(1, queued_)));
  }
  Admit(submit);
}

bool Batcher::Core::Serves(ModelId model) const {
  auto found = models_.find(model);
  // Between a worker's death and its successor the requests wait.
  return found != models_.end() && found->second.ever_ready && !found->second.failed;
}

void Batcher::Core::Refuse(message::Submit& submit, Rejection reason, const absl::Status& status) {
  observer_.OnRejected(submit.request.model, reason);
  Usage usage;
  usage.queue_time = now_ - submit.request.arrival;
  submit.sink->OnDone(status, usage);
}

void Batcher::Core::Admit(message::Submit& submit) {
  auto owned = std::make_unique<ActiveRequest>();
  ActiveRequest* request = owned.get();
  request->id = submit.id;
  request->model = submit.request.model;
  request->arrival = submit.request.arrival;
  request->deadline = submit.request.deadline;
  for (SampleJob& job : submit.request.samples) {
    auto sample = std::make_unique<Sample>();
    sample->request = request;
    sample->index = static_cast<uint32_t>(request->samples.size());
    sample->job = std::move(job);
    request->samples.push_back(std::move(sample));
  }
  request->live = request->samples.size();
  if (const TextJob* text = request->samples.front()->text()) {
    request->usage.prompt_tokens = static_cast<uint32_t>(text->prompt.size());
  }
  ModelQueue& queue = models_[request->model];
  SetTenant(request, submit.request.tenant);
  SetRank(request, submit.request.priority);
  request->salt = SaltOf(submit.request.tenant, request->samples.front()->job);
  if (absl::Status status = FitDeadline(request, queue, submit.request); !status.ok()) {
    return Refuse(submit, Rejection::kDeadline, status);
  }
  fair_clock_.Enter(request->tenant, request->cost, request->weight);
  request->sink = std::move(submit.sink);
  if (request->deadline != absl::InfiniteFuture()) {
    deadlines_.insert({request->deadline, request->id});
    if (request->cost > absl::ZeroDuration()) {
      request->latest_start = request->deadline - request->cost / kDoubtful;
      urgent_.insert({request->latest_start, request->id});
    }
  }
  const absl::Duration wait = Wait(*request, queue, queue.queued_work);
  queue.waiting.emplace(std::make_pair(request->rank, request->id), request);
  ++queue.queued;
  ++queued_;
  queued_work_ += request->cost;
  queue.queued_work += request->cost;
  queue.changed = queue.moved = queue.stirred = true;
  request->position = static_cast<uint32_t>(queue.waiting.size()) - 1;
  requests_.emplace(request->id, std::move(owned));
  request->sink->OnQueued(request->position, wait);
  if (queue.wanted) std::exchange(queue.wanted, nullptr)();
}

absl::Duration Batcher::Core::Wait(const ActiveRequest& request, const ModelQueue& queue,
                                   absl::Duration work) {
  if (queue.places.empty()) return work;
  const auto& [load, id] = *queue.places.begin();
  const ActiveWorker& worker = *workers_.at(id);
  if (work == absl::ZeroDuration()) {
    const Sample& next = *request.samples[request.next_to_begin];
    if (HasRoom(worker, worker.models.at(request.model), next)) return absl::ZeroDuration();
  }
  // A place is free when one of those aboard ends; by then half of its time is over on average.
  if (!worker.aboard.empty()) {
    work += absl::Seconds(load / (2.0 * static_cast<double>(worker.aboard.size())));
  }
  return work / queue.pace.Rate(Workers(queue));
}

void Batcher::Core::SetTenant(ActiveRequest* request, const std::string& tenant) {
  if (options_.policy.policy != Policy::kHanmo) return;  // all are one
  request->tenant = tenant;
  auto weight = options_.tenant_weights.find(tenant);
  if (weight != options_.tenant_weights.end()) request->weight = weight->second;
}

void Batcher::Core::SetRank(ActiveRequest* request, int32_t priority) {
  const StepCosts* costs = models_[request->model].costs;
  request->cost = absl::ZeroDuration();
  for (const auto& sample : request->samples) {
    std::visit([&](const auto& job) { request->cost += costs->Lone(request->model, job); },
               sample->job);
  }
  Arrival arrival;
  arrival.now = fair_clock_.now();
  arrival.start = fair_clock_.StartOf(request->tenant);
  arrival.cost = request->cost;
  arrival.left = request->deadline == absl::InfiniteFuture() ? absl::InfiniteDuration()
                                                             : request->deadline - now_;
  arrival.priority = priority;
  request->start = arrival.start;
  request->rank = RankOf(options_.policy, arrival);
}

absl::Status Batcher::Core::CheckDeadline(ActiveRequest* request, const ModelQueue& queue) {
  if (request->deadline == absl::InfiniteFuture() || options_.policy.policy != Policy::kHanmo) {
    return absl::OkStatus();
  }
  const absl::Duration left = request->deadline - now_;
  if (request->cost * kDoubtful > left) {
    return absl::DeadlineExceededError(
        absl::StrCat("the deadline can't be met: alone the request takes about ",
                     absl::FormatDuration(Rounded(request->cost)), ", ",
                     absl::FormatDuration(Rounded(left)), " are left"));
  }
  const absl::Duration ahead = WorkAhead(*request, queue);
  request->predicted = ahead + request->cost;
  if (queue.delay.Of(request->predicted) <= left) return absl::OkStatus();
  return RetryAfter(
      absl::ResourceExhaustedError(absl::StrCat(
          "the deadline can't be met: about ", absl::FormatDuration(Rounded(ahead)),
          " of work are ahead, the request takes ", absl::FormatDuration(Rounded(request->cost)),
          ", ", absl::FormatDuration(Rounded(left)), " are left")),
      request->predicted - left);
}

absl::Status Batcher::Core::FitDeadline(ActiveRequest* request, const ModelQueue& queue,
                                        const Request& submitted) {
  absl::Status status = CheckDeadline(request, queue);
  const PictureJob* first = request->samples.front()->picture();
  if (status.ok() || first == nullptr) return status;
  if (first->min_steps == 0 || first->min_steps >= first->steps) return status;
  const auto fits = [&](uint32_t steps) {
    for (auto& sample : request->samples) std::get<PictureJob>(sample->job).steps = steps;
    SetRank(request, submitted.priority);
    return CheckDeadline(request, queue).ok();
  };
  // The most that fit, between some that do and one that does not.
  uint32_t fitting = first->min_steps, failing = first->steps;
  if (!fits(fitting)) return status;
  while (failing - fitting > 1) {
    const uint32_t middle = fitting + (failing - fitting) / 2;
    (fits(middle) ? fitting : failing) = middle;
  }
  fits(fitting);
  request->usage.granted_steps = fitting;
  return absl::OkStatus();
}

absl::Duration Batcher::Core::WorkAhead(const ActiveRequest& request, const ModelQueue& queue) {
  absl::Duration ahead;
  size_t looked_at = 0;
  const auto look = [&](const ActiveRequest& other) {
    // The newest: of equals the others go first.
    if (other.rank <= request.rank) ahead += Remaining(other);
    return ++looked_at < kRequestsLookedAt;
  };
  for (const auto& [key, other] : queue.waiting) {
    if (other->rank > request.rank || !look(*other)) break;
  }
  // Texts join those that run, where there is room for them.
  if (request.samples.front()->text() != nullptr) return Wait(request, queue, ahead);
  for (const auto& [load, id] : queue.places) {
    const ActiveWorker& worker = *workers_.at(id);
    for (const Sample* sample : worker.aboard) {
      if (sample->request->waiting() || sample->index > 0) continue;
      if (!look(*sample->request)) return ahead / Workers(queue);
    }
  }
  return ahead / Workers(queue);
}

absl::Duration Batcher::Core::Remaining(const ActiveRequest& request) const {
  double left = 0;
  for (const auto& sample : request.samples) {
    if (sample->state == SampleState::kEnded) continue;
    const double done = sample->steps_seen + sample->emitted.size();
    const PictureJob* picture = sample->picture();
    const double all = picture != nullptr ? picture->steps : sample->text()->max_tokens;
    left += 1 - std::min(0.95, done / std::max(1.0, all));
  }
  return request.cost * (left / static_cast<double>(request.samples.size()));
}

uint32_t Batcher::Core::Workers(const ModelQueue& queue) const {
  return std::max<uint32_t>(1, static_cast<uint32_t>(queue.places.size()));
}

absl::Duration Batcher::Core::QueuedWork() const {
  return queued_work_ / std::max<int64_t>(1, static_cast<int64_t>(workers_.size()));
}

void Batcher::Core::TellPositions(ModelQueue& queue) {
  uint32_t position = 0;
  absl::Duration work;
  for (const auto& [key, request] : queue.waiting) {
    if (position == kToldPositions) return;
    if (request->queued() && request->position != position) {
      request->position = position;
      request->sink->OnQueued(position, Wait(*request, queue, work));
    }
    work += request->cost;
    ++position;
  }
}

void Batcher::Core::PromoteUrgent() {
  while (!urgent_.empty() && urgent_.begin()->first <= now_) {
    ActiveRequest* request = requests_.at(urgent_.begin()->second).get();
    urgent_.erase(urgent_.begin());
    request->latest_start = absl::InfiniteFuture();
    if (options_.policy.policy != Policy::kHanmo) continue;
    // What is lost anyway must not take others along; it may still run when nobody else wants to.
    const bool lost = now_ + Remaining(*request) * kDoubtful > request->deadline;
    Rerank(request, lost ? kLost : UrgentRank(request->deadline));
  }
}

void Batcher::Core::Rerank(ActiveRequest* request, Rank rank) {
  ModelQueue& queue = models_[request->model];
  if (request->waiting()) queue.waiting.erase({request->rank, request->id});
  std::vector<Sample*> returning;
  for (const auto& sample : request->samples) {
    if (sample->state == SampleState::kAboard) Unline(sample.get());
    if (sample->state == SampleState::kReturning) {
      Remove(sample.get(), queue.returning);
      returning.push_back(sample.get());
    }
  }
  request->rank = rank;
  if (request->waiting()) {
    queue.waiting.emplace(std::make_pair(rank, request->id), request);
    queue.moved = queue.stirred = true;
  }
  for (Sample* sample : returning) InsertByRank(sample, queue.returning);
  for (const auto& sample : request->samples) {
    if (sample->state != SampleState::kAboard) continue;
    std::vector<Sample*>& aboard = sample->worker->aboard;
    std::sort(aboard.begin(), aboard.end(), GoesBefore);
    Line(sample.get());
    Touch(*sample->worker);
  }
}

void Batcher::Core::Handle(message::Cancel& cancel) {
  auto found = requests_.find(cancel.id);
  if (found == requests_.end()) return;
  EndRequest(found->second.get(), std::move(cancel.reason));
}

void Batcher::Core::ExpireDeadlines() {
  while (!deadlines_.empty() && deadlines_.begin()->first <= now_) {
    ActiveRequest* request = requests_.at(deadlines_.begin()->second).get();
    EndRequest(request, absl::DeadlineExceededError(
                            request->started ? "the deadline passed while the request ran"
                                             : "the deadline passed in the queue"));
  }
}

void Batcher::Core::Handle(message::Drain&) { draining_ = true; }

void Batcher::Core::Handle(message::Abort&) {
  draining_ = true;
  while (!requests_.empty()) {
    EndRequest(requests_.begin()->second.get(),
               absl::UnavailableError("the server is shutting down"));
  }
}

void Batcher::Core::Handle(message::ModelFailed& failed) {
  ModelQueue& queue = models_[failed.model];
  queue.failed = true;
  EndRequests(failed.model, absl::UnavailableError("the model failed and is not served any more"));
}

void Batcher::Core::EndRequests(ModelId model, const absl::Status& status) {
  std::vector<ActiveRequest*> lost;
  for (const auto& [id, request] : requests_) {
    if (request->model == model) lost.push_back(request.get());
  }
  for (ActiveRequest* request : lost) EndRequest(request, status);
}

void Batcher::Core::NoteDelay(const ActiveRequest& request, ModelQueue& queue,
                              const absl::Status& status) {
  if (request.predicted == absl::ZeroDuration() || request.cost == absl::ZeroDuration()) return;
  const absl::Duration took = now_ - request.arrival;
  if (status.ok()) queue.delay.Learn(request.predicted, took);
  // How much longer it would have taken is not known.
  if (absl::IsDeadlineExceeded(status) && took > queue.delay.Of(request.predicted)) {
    queue.delay.Learn(request.predicted, took);
  }
}

void Batcher::Core::EndRequest(ActiveRequest* request, const absl::Status& status) {
  ModelQueue& queue = models_[request->model];
  if (request->waiting()) {
    queue.waiting.erase({request->rank, request->id});
    queue.moved = true;
  }
  if (request->queued()) {
    --queue.queued;
    --queued_;
    queued_work_ -= request->cost;
    queue.queued_work -= request->cost;
  } else {
    --queue.running;
  }
  queue.changed = true;
  for (auto& sample : request->samples) {
    if (sample->state == SampleState::kAboard) Leave(sample.get());
    if (sample->state == SampleState::kReturning) {
      Remove(sample.get(), queue.returning);
    }
    sample->state = SampleState::kEnded;
  }
  deadlines_.erase({request->deadline, request->id});
  urgent_.erase({request->latest_start, request->id});
  if (request->queued()) {
    fair_clock_.Refund(request->tenant, request->cost, request->weight);
  }
  fair_clock_.Leave(request->start);
  if (!request->started) request->usage.queue_time = now_ - request->arrival;
  if (absl::IsCancelled(status)) observer_.OnCancelled(request->model);
  NoteDelay(*request, queue, status);
  if (status.ok()) queue.pace.Learn(now_, request->cost, !queue.waiting.empty());
  if (absl::IsDeadlineExceeded(status)) {
    observer_.OnDeadlineMissed(request->model, request->started);
  }
  observer_.OnDone(request->model, status.code(), request->usage, now_ - request->arrival);
  auto node = requests_.extract(request->id);
  request->sink->OnDone(status, request->usage);
}

}  // namespace hanmo
