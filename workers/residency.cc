#include "workers/residency.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "workers/kernels/yield.h"

namespace hanmo {
namespace {

// While a part is waited for, other work is let in so often.
constexpr absl::Duration kYieldInterval = absl::Milliseconds(5);

absl::Duration Uptime() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

Residency::~Residency() {
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

absl::Status Residency::Fill() {
  {
    absl::MutexLock lock(&mu_);
    places_.assign(options_.parts, Place::kAway);
    failures_.resize(options_.parts);
    std::fill_n(places_.begin(), options_.slots, Place::kHere);
  }
  for (size_t part = 0; part < options_.slots; ++part) {
    if (absl::Status status = options_.load(part); !status.ok()) return status;
  }
  if (options_.slots < options_.parts) thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

absl::Status Residency::Use(size_t part, absl::Duration* waited) {
  {
    absl::MutexLock lock(&mu_);
    current_ = part;
    if (places_[part] == Place::kHere) return absl::OkStatus();
    if (places_[part] == Place::kFailed) places_[part] = Place::kAway;
  }
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      const absl::Duration start = Uptime();
      const bool settled =
          mu_.AwaitWithTimeout(absl::Condition(this, &Residency::settled), kYieldInterval);
      *waited += Uptime() - start;
      if (settled) return failures_[part];
    }
    YieldPoint();
  }
}

void Residency::Run() {
  options_.start_thread();
  while (true) {
    size_t part = 0;
    std::optional<size_t> leaves;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &Residency::has_work));
      if (stopping_) return;
      part = *Next();
      leaves = MakeRoomFor(part);
    }
    if (leaves.has_value()) options_.evict(*leaves);
    absl::Status status = options_.load(part);
    absl::MutexLock lock(&mu_);
    places_[part] = status.ok() ? Place::kHere : Place::kFailed;
    failures_[part] = std::move(status);
  }
}

std::optional<size_t> Residency::Next() const {
  for (size_t ahead = 0; ahead < options_.slots; ++ahead) {
    const size_t part = (current_ + ahead) % options_.parts;
    if (places_[part] == Place::kAway) return part;
  }
  return std::nullopt;
}

// The part is one of `slots` from the current one on. So where that many others are in memory, one
// of them is none of these, and it is not the current one.
std::optional<size_t> Residency::MakeRoomFor(size_t part) {
  places_[part] = Place::kComing;
  size_t here = 0;
  std::optional<size_t> last;
  for (size_t ahead = 0; ahead < options_.parts; ++ahead) {
    const size_t other = (current_ + ahead) % options_.parts;
    if (places_[other] != Place::kHere) continue;
    ++here;
    last = other;
  }
  if (here < options_.slots) return std::nullopt;
  places_[*last] = Place::kAway;
  return last;
}

}  // namespace hanmo
