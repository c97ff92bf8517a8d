// Which batch runs next on a worker: a pure function of a snapshot.
#ifndef HANMO_SERVER_BATCHER_POLICY_H_
#define HANMO_SERVER_BATCHER_POLICY_H_

#include <cstddef>
#include <cstdint>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/batcher/request.h"
#include "server/batcher/worker.h"

namespace hanmo {

// Samples that may share a step: everything else about them may differ.
struct BatchKey {
  ModelId model = 0;
  StepKind kind = StepKind::kText;
  uint32_t width = 0;  // pixels; 0 where the tensor shape does not depend on it
  uint32_t height = 0;
  SampleHandle alone = 0;  // a suspect of a worker's death shares with nobody

  friend bool operator==(const BatchKey&, const BatchKey&) = default;
};

// The rows that could run now under one key.
struct Group {
  BatchKey key;
  uint32_t rows = 0;
  absl::Time oldest_arrival = absl::InfiniteFuture();
  // Step number on this worker when the key last ran; 0 when never.
  uint64_t last_served = 0;
};

// Index of the group to run; `groups` is not empty. The one served longest ago goes first, so text
// flows while pictures are painted and no key starves; ties go to the oldest request.
inline size_t ChooseGroup(absl::Span<const Group> groups) {
  size_t best = 0;
  for (size_t i = 1; i < groups.size(); ++i) {
    const Group& a = groups[i];
    const Group& b = groups[best];
    if (a.last_served != b.last_served ? a.last_served < b.last_served
                                       : a.oldest_arrival < b.oldest_arrival) {
      best = i;
    }
  }
  return best;
}

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_POLICY_H_
