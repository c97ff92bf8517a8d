// Into the queue, out of it, and every end of a request.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/batcher/core.h"

namespace hanmo {
namespace {

// Positions further back are told at admission only, so that a tick never walks the whole queue.
constexpr uint32_t kToldPositions = 32;

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
  if (queued_ >= options_.max_queued_requests) {
    // What came in this same tick may fit beside the running ones.
    for (auto& [model, queue] : models_) BeginSamples(model, queue);
  }
  if (queued_ >= options_.max_queued_requests) {
    return Refuse(submit, Rejection::kQueueFull,
                  absl::ResourceExhaustedError(
                      absl::StrCat("the queue is full: ", queued_, " requests are waiting")));
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
  request->sink = std::move(submit.sink);
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
  if (request->deadline != absl::InfiniteFuture()) {
    deadlines_.insert({request->deadline, request->id});
  }
  ModelQueue& queue = models_[request->model];
  request->position = static_cast<uint32_t>(queue.waiting.size());
  request->place = queue.waiting.insert(queue.waiting.end(), request);
  ++queue.queued;
  ++queued_;
  queue.changed = true;
  requests_.emplace(request->id, std::move(owned));
  request->sink->OnQueued(request->position);
}

void Batcher::Core::TellPositions(ModelQueue& queue) {
  uint32_t position = 0;
  for (ActiveRequest* request : queue.waiting) {
    if (position == kToldPositions) return;
    if (request->queued() && request->position != position) {
      request->position = position;
      request->sink->OnQueued(position);
    }
    ++position;
  }
}

void Batcher::Core::Handle(message::Cancel& cancel) {
  auto found = requests_.find(cancel.id);
  if (found == requests_.end()) return;
  EndRequest(found->second.get(), absl::CancelledError("cancelled by the client"));
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
  std::vector<ActiveRequest*> lost;
  for (const auto& [id, request] : requests_) {
    if (request->model == failed.model) lost.push_back(request.get());
  }
  for (ActiveRequest* request : lost) {
    EndRequest(request, absl::UnavailableError("the model failed and is not served any more"));
  }
}

void Batcher::Core::EndRequest(ActiveRequest* request, const absl::Status& status) {
  ModelQueue& queue = models_[request->model];
  if (request->next_to_begin < request->samples.size()) {
    queue.waiting.erase(request->place);
    queue.moved = true;
  }
  if (request->queued()) {
    --queue.queued;
    --queued_;
  } else {
    --queue.running;
  }
  queue.changed = true;
  for (auto& sample : request->samples) {
    if (sample->state == SampleState::kAboard) Leave(sample.get());
    if (sample->state == SampleState::kReturning) {
      queue.returning.erase(
          std::find(queue.returning.begin(), queue.returning.end(), sample.get()));
    }
    sample->state = SampleState::kEnded;
  }
  deadlines_.erase({request->deadline, request->id});
  if (!request->started) request->usage.queue_time = now_ - request->arrival;
  if (absl::IsCancelled(status)) observer_.OnCancelled(request->model);
  if (absl::IsDeadlineExceeded(status)) {
    observer_.OnDeadlineMissed(request->model, request->started);
  }
  observer_.OnDone(request->model, status.code(), request->usage, now_ - request->arrival);
  auto node = requests_.extract(request->id);
  request->sink->OnDone(status, request->usage);
}

}  // namespace hanmo
