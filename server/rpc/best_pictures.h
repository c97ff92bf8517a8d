// Of many scored pictures the best few: what a request with best_of holds while it runs.
#ifndef HANMO_SERVER_RPC_BEST_PICTURES_H_
#define HANMO_SERVER_RPC_BEST_PICTURES_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "server/batcher/sink.h"
#include "server/media/task_pool.h"

namespace hanmo {

struct ScoredPicture {
  uint32_t index = 0;  // of the candidate
  float score = 0;     // finite
  Pixels pixels;
};

// Never holds more than `count` pictures; they weigh on the media pool, in bytes of pixels. Not
// thread-safe.
class BestPictures {
 public:
  // `pool` outlives it; `count` is at least 1.
  BestPictures(size_t count, TaskPool* pool) : count_(count), pool_(pool) {}
  ~BestPictures();
  BestPictures(const BestPictures&) = delete;
  BestPictures& operator=(const BestPictures&) = delete;

  // RESOURCE_EXHAUSTED when the pool has no room for it.
  absl::Status Add(ScoredPicture picture);

  // The best, best first; of equal scores the lower index goes first. The caller hands them to
  // TaskPool::SubmitKept with the weight of their pixels.
  std::vector<ScoredPicture> Take();

 private:
  const size_t count_;
  TaskPool* const pool_;
  std::vector<ScoredPicture> best_;  // best first
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_BEST_PICTURES_H_
