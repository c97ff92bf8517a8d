#include "client/load/load_run.h"

#include <chrono>
#include <utility>

#include "absl/time/clock.h"

namespace hanmo {
namespace {

constexpr std::chrono::seconds kConnectTimeout(10);

// gRPC 1.51 frees the queue of its callbacks twice when the last reference to a channel, which a
// call holds for a moment after its end, goes on the queue's own thread. So none is ever the last.
void KeepForGood(const LoadRun::Channels& channels) {
  static absl::Mutex mu;
  static LoadRun::Channels& kept = *new LoadRun::Channels;
  absl::MutexLock lock(&mu);
  kept.insert(kept.end(), channels.begin(), channels.end());
}

}  // namespace

absl::Status LoadRun::Connect(const Channels& streaming, const Channels& unary) {
  const auto deadline = std::chrono::system_clock::now() + kConnectTimeout;
  for (const auto& [channels, stubs] : {std::pair(&streaming, &streaming_), {&unary, &unary_}}) {
    KeepForGood(*channels);
    for (const auto& channel : *channels) {
      if (!channel->WaitForConnected(deadline)) {
        return absl::DeadlineExceededError("no connection within ten seconds");
      }
      stubs->push_back(hanmo::v1::Generation::NewStub(channel));
    }
  }
  return absl::OkStatus();
}

void LoadRun::Play(const std::function<std::optional<Arrival>()>& next,
                   std::function<void(Outcome)> done) {
  done_ = std::move(done);
  start_ = absl::Now();
  const bool closed = options_.concurrency > 0;
  for (size_t index = 0;; ++index) {
    if (closed && !AwaitRoom()) break;
    std::optional<Arrival> arrival = next();
    if (!arrival) break;
    const absl::Time due = closed ? absl::Now() : start_ + arrival->at;
    if (!closed && !SleepUntil(due)) break;
    Start(index, *std::move(arrival), due);
  }
  SleepUntil(start_ + options_.length);
  Cut(/*all=*/false);
  AwaitAll(options_.drain);
  Cut(/*all=*/true);
  AwaitAll(absl::InfiniteDuration());
}

void LoadRun::Stop() {
  {
    absl::MutexLock lock(&mu_);
    stopped_ = true;
  }
  Cut(/*all=*/true);
}

void LoadRun::Start(size_t index, Arrival arrival, absl::Time due) {
  const Stubs& stubs = arrival.streams() ? streaming_ : unary_;
  const bool repeat = arrival.repeat;
  std::shared_ptr<LoadCall> call = LoadCall::Create(
      std::move(arrival), due, [this, index](LoadCall* ended) { Ended(index, ended); });
  size_t turn = 0;
  {
    absl::MutexLock lock(&mu_);
    // It repeats after an end that came with or before the run's.
    if (stopped_ || (over_ && repeat)) return;
    calls_.emplace(call.get(), call);
    ++open_;
    turn = sent_++;
  }
  // It may end, on another thread, before this is back.
  call->Send(stubs[turn % stubs.size()].get());
}

void LoadRun::Ended(size_t index, LoadCall* call) {
  call->outcome().arrival = index;
  const bool again = call->arrival().repeat && call->outcome().status.ok();
  {
    absl::MutexLock lock(&done_mu_);
    done_(std::move(call->outcome()));
  }
  if (again) Start(index, call->arrival(), absl::Now());
  std::shared_ptr<LoadCall> last;
  {
    absl::MutexLock lock(&mu_);
    const auto found = calls_.find(call);
    last = std::move(found->second);
    calls_.erase(found);
  }
  last.reset();
  absl::MutexLock lock(&mu_);
  --open_;
}

void LoadRun::Cut(bool all) {
  std::vector<std::shared_ptr<LoadCall>> calls;
  {
    absl::MutexLock lock(&mu_);
    over_ = true;
    for (const auto& [call, reference] : calls_) {
      if (all || call->arrival().repeat) calls.push_back(reference);
    }
  }
  // gRPC may run callbacks, which take the lock, on this thread.
  for (const auto& call : calls) call->Cut();
}

bool LoadRun::SleepUntil(absl::Time time) {
  absl::MutexLock lock(&mu_);
  return !mu_.AwaitWithDeadline(absl::Condition(&stopped_), time);
}

bool LoadRun::AwaitRoom() {
  const auto room = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return stopped_ || open_ < options_.concurrency;
  };
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(&room));
  return !stopped_;
}

void LoadRun::AwaitAll(absl::Duration patience) {
  const auto none = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return open_ == 0; };
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(&none), patience);
}

}  // namespace hanmo
