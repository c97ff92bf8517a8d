#include "server/batcher/batcher.h"

#include <algorithm>
#include <utility>

#include "server/batcher/core.h"

namespace hanmo {
namespace {

// Describing the costs walks all of them.
constexpr absl::Duration kTellCosts = absl::Seconds(1);

// Of a limit of the queue, where an overload ends.
constexpr double kRelieved = 0.75;

}  // namespace

void Inbox::Put(Message message) {
  bool first;
  {
    absl::MutexLock lock(&mu_);
    first = messages_.empty();
    messages_.push_back(std::move(message));
  }
  if (first) wake_();
}

void Inbox::Swap(std::vector<Message>* messages) {
  absl::MutexLock lock(&mu_);
  messages_.swap(*messages);
}

bool Inbox::empty() const {
  absl::MutexLock lock(&mu_);
  return messages_.empty();
}

Batcher::Batcher(BatcherOptions options, BatcherObserver* observer, std::function<void()> wake)
    : core_(std::make_unique<Core>(options, observer, std::move(wake))) {}
Batcher::~Batcher() = default;

RequestId Batcher::Submit(Request request, std::shared_ptr<Sink> sink) {
  const RequestId id = core_->NextId();
  core_->inbox().Put(message::Submit{id, std::move(request), std::move(sink)});
  return id;
}
void Batcher::Cancel(RequestId id, absl::Status reason) {
  core_->inbox().Put(message::Cancel{id, std::move(reason)});
}
void Batcher::Wake(RequestId id) { core_->inbox().Put(message::Wake{id}); }
void Batcher::AddWorker(WorkerId worker, std::shared_ptr<WorkerLink> link, std::string device) {
  core_->inbox().Put(message::AddWorker{worker, std::move(link), std::move(device)});
}
void Batcher::ModelReady(WorkerId worker, ModelId model, ModelCapacity capacity) {
  core_->inbox().Put(message::ModelReady{worker, model, capacity});
}
void Batcher::WorkerLost(WorkerId worker) { core_->inbox().Put(message::WorkerLost{worker}); }
void Batcher::ModelFailed(ModelId model) { core_->inbox().Put(message::ModelFailed{model}); }
void Batcher::RemoveModel(ModelId model, std::function<void()> removed) {
  core_->inbox().Put(message::RemoveModel{model, std::move(removed)});
}
void Batcher::InheritCosts(ModelId from, ModelId to) {
  core_->inbox().Put(message::InheritCosts{from, to});
}
void Batcher::RestModel(ModelId model, std::function<void(bool)> done,
                        std::function<void()> wanted) {
  core_->inbox().Put(message::RestModel{model, std::move(done), std::move(wanted)});
}
void Batcher::StepDone(WorkerId worker, StepResult result) {
  core_->inbox().Put(message::StepDone{worker, std::move(result)});
}
void Batcher::Saved(WorkerId worker, SavePoint save_point) {
  core_->inbox().Put(message::Saved{worker, std::move(save_point)});
}
void Batcher::Drain() { core_->inbox().Put(message::Drain{}); }
void Batcher::Abort() { core_->inbox().Put(message::Abort{}); }
void Batcher::Tick(absl::Time now) { core_->Tick(now); }
absl::Time Batcher::NextDeadline() const { return core_->NextDeadline(); }
std::vector<std::shared_ptr<WorkerLink>> Batcher::TakeLost() { return core_->TakeLost(); }
bool Batcher::idle() const { return core_->idle(); }
bool Batcher::pending() const { return !core_->inbox().empty(); }

void Batcher::Core::Tick(absl::Time now) {
  now_ = now;
  HandleMessages();
  ExpireDeadlines();
  PromoteUrgent();
  GiveBackParked();
  const bool waited = next_change_ <= now_;
  next_change_ = absl::InfiniteFuture();
  for (auto& [model, queue] : models_) {
    if (queue.stirred || waited) BeginSamples(queue);
  }
  // Planning may touch the same worker again, never another one.
  for (size_t i = 0; i < touched_.size(); ++i) {
    ActiveWorker* worker = FindWorker(touched_[i]);
    if (worker == nullptr) continue;
    SendDrops(*worker);
    Plan(*worker);
    SendDrops(*worker);
  }
  Report();
}

void Batcher::Core::HandleMessages() {
  inbox_.Swap(&messages_);
  for (Message& message : messages_) {
    std::visit([this](auto& m) { Handle(m); }, message);
  }
  messages_.clear();
}

absl::Time Batcher::Core::NextDeadline() const {
  absl::Time next = next_change_;
  if (!deadlines_.empty()) next = std::min(next, deadlines_.begin()->first);
  if (!urgent_.empty()) next = std::min(next, urgent_.begin()->first);
  if (!parked_.empty()) next = std::min(next, parked_.front().first);
  for (const auto& [model, queue] : models_) {
    if (queue.learned) next = std::min(next, queue.costs_told + kTellCosts);
  }
  return next;
}

void Batcher::Core::TellOverload() {
  const double limit = overloaded_ ? kRelieved : 1;
  const bool full = queued_ >= limit * options_.max_queued_requests ||
                    QueuedWork() >= limit * options_.max_queued_work;
  if (full == overloaded_) return;
  overloaded_ = full;
  observer_.OnOverload(full);
}

void Batcher::Core::Report() {
  TellOverload();
  for (auto& [model, queue] : models_) {
    if (queue.moved) TellPositions(queue);
    if (queue.changed) observer_.OnLoad(model, queue.queued, queue.running);
    queue.moved = queue.changed = false;
    if (queue.learned && now_ - queue.costs_told >= kTellCosts) {
      queue.learned = false;
      queue.costs_told = now_;
      observer_.OnCosts(model, queue.costs->Describe(model, 2 * options_.max_picture_batch));
    }
  }
  for (const WorkerId id : touched_) {
    ActiveWorker* worker = FindWorker(id);
    if (worker == nullptr) continue;
    worker->listed = false;
    for (auto& [model, home] : worker->models) {
      const uint32_t used = home.pages.total() - home.pages.free();
      if (used == home.reported_pages || home.pages.total() == 0) continue;
      observer_.OnPages(id, model, used, home.pages.total());
      home.reported_pages = used;
    }
  }
  touched_.clear();
}

ActiveWorker* Batcher::Core::FindWorker(WorkerId worker) {
  auto found = workers_.find(worker);
  return found == workers_.end() ? nullptr : found->second.get();
}

}  // namespace hanmo
