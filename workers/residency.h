// Which parts of a model are in memory where not all of them fit. The parts are used one after
// another in a ring, as the experts of a picture model are: while one is in use, those that follow
// are loaded on a thread of its own, and the one that would be used last makes room.
#ifndef HANMO_WORKERS_RESIDENCY_H_
#define HANMO_WORKERS_RESIDENCY_H_

#include <cstddef>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace hanmo {

class Residency {
 public:
  struct Options {
    size_t parts = 1;
    size_t slots = 1;  // parts in memory at a time: 1 to `parts`
    // Brings a part into memory, takes it out again. One call at a time, never for the part in use;
    // on the calling thread in Fill, afterwards on the loading thread.
    std::function<absl::Status(size_t part)> load;
    std::function<void(size_t part)> evict;
    std::function<void()> start_thread = [] {};  // first on the loading thread
  };

  explicit Residency(Options options) : options_(std::move(options)) {}
  // Waits for the load under way.
  ~Residency();
  Residency(const Residency&) = delete;
  Residency& operator=(const Residency&) = delete;

  // Loads the first parts, as many as there are slots. Once, before the first Use.
  absl::Status Fill();

  // Returns once `part` is in memory, where it stays until the next call. Meanwhile this thread's
  // yield points (kernels/yield.h) are heard; `*waited` grows by the time between them. What `load`
  // says of a part that can't be loaded; the next call tries again.
  absl::Status Use(size_t part, absl::Duration* waited) ABSL_LOCKS_EXCLUDED(mu_);

  size_t slots() const { return options_.slots; }

 private:
  enum class Place { kAway, kComing, kHere, kFailed };

  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // The part to load next: of those from the current one on that there are slots for.
  std::optional<size_t> Next() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Calls `part` coming; returns the part that leaves for it, if one must.
  std::optional<size_t> MakeRoomFor(size_t part) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool has_work() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return stopping_ || Next().has_value();
  }
  bool settled() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return places_[current_] == Place::kHere || places_[current_] == Place::kFailed;
  }

  const Options options_;
  absl::Mutex mu_;
  std::vector<Place> places_ ABSL_GUARDED_BY(mu_);
  std::vector<absl::Status> failures_ ABSL_GUARDED_BY(mu_);
  size_t current_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_RESIDENCY_H_
