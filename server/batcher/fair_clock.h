// Who is next between tenants: start-time fair queuing (Goyal, Vin and Cheng, 1996) by predicted
// device time.
#ifndef HANMO_SERVER_BATCHER_FAIR_CLOCK_H_
#define HANMO_SERVER_BATCHER_FAIR_CLOCK_H_

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace hanmo {

// An instant on the clock of work: nanoseconds of device time. With one tenant it grows by each
// request's cost, so its order is that of arrival.
using WorkTime = int64_t;

// Not thread-safe. O(log n) in the active requests; keeps nothing of tenants that have none.
class FairClock {
 public:
  // The start tag of a tenant's next request: not before what is served now, and not before the
  // tenant's share, by its weight, would have finished the requests that it has already.
  WorkTime StartOf(absl::string_view tenant) const {
    const auto finish = finish_.find(tenant);
    return active_.empty() || finish == finish_.end() ? now() : std::max(now(), finish->second);
  }

  // Charges the tenant for the request. Every Enter is followed by a Leave with the same tag.
  WorkTime Enter(absl::string_view tenant, absl::Duration cost, double weight) {
    const WorkTime start = StartOf(tenant);
    if (active_.empty()) finish_.clear();
    finish_[tenant] = start + Charge(cost, weight);
    last_ = std::max(last_, start);
    active_.insert(start);
    if (finish_.size() > 2 * active_.size() + 64) Forget();
    return start;
  }

  // Before its Leave, of a request that never ran: later ones of its tenant come earlier for it.
  void Refund(absl::string_view tenant, absl::Duration cost, double weight) {
    const auto finish = finish_.find(tenant);
    if (finish != finish_.end()) finish->second -= Charge(cost, weight);
  }

  void Leave(WorkTime start) {
    active_.erase(active_.find(start));
    if (active_.empty()) ++last_;
  }

  // The start tag of the oldest request that is waiting or running.
  WorkTime now() const { return active_.empty() ? last_ : *active_.begin(); }

 private:
  // At least a nanosecond, so that requests of no known cost keep their order.
  static WorkTime Charge(absl::Duration cost, double weight) {
    return std::max<WorkTime>(1, absl::ToInt64Nanoseconds(cost / weight));
  }

  void Forget() {
    const WorkTime now = this->now();
    for (auto it = finish_.begin(); it != finish_.end();) {
      const auto done = it++;
      if (done->second <= now) finish_.erase(done);
    }
  }

  absl::btree_multiset<WorkTime> active_;
  absl::flat_hash_map<std::string, WorkTime> finish_;
  WorkTime last_ = 0;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_FAIR_CLOCK_H_
