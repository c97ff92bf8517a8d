// Who goes first: pure functions of a snapshot. The rest of the batcher keeps the order, these
// decide it.
#ifndef HANMO_SERVER_BATCHER_POLICY_H_
#define HANMO_SERVER_BATCHER_POLICY_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <tuple>
#include <utility>

#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/batcher/fair_clock.h"
#include "server/batcher/request.h"
#include "server/batcher/worker.h"

namespace hanmo {

enum class Policy {
  // Short requests before long ones, as far as the long ones can bear it; deadlines; fair shares.
  kHanmo,
  // In order of arrival; batches up to the knee, joined at any step.
  kFcfs,
  // In order of arrival; a batch takes what is there, up to its fixed size, and is closed until its
  // last sample has ended. Pictures of one batch have equal size, steps, guidance and sampler: so
  // do servers batch that call a pipeline.
  kStatic,
};

struct PolicyOptions {
  Policy policy = Policy::kHanmo;
  // A request is due after this many times its own lone time. Larger: better mean and better for
  // short requests; smaller: better for the longest ones, 1 is the order of arrival.
  double stretch = 8;
  // One level of priority counts as so much longer in the queue.
  absl::Duration priority_step = absl::Seconds(30);
  // Of a worker's time while both kinds have work; the rest is for pictures, whether they are
  // denoised or painted by tokens.
  double text_share = 0.6;
  // Below this a step is not cut into slices, and while pictures are alone slices are this long.
  absl::Duration slice = absl::Milliseconds(30);
  // A text step grows by this part of its time at most for each text whose prompt it takes in.
  double prefill_stretch = 0.35;
};

// The order of requests: the smaller goes first. On the clock of work, except below kUrgentEnd,
// where it is that of deadlines.
using Rank = int64_t;
inline constexpr Rank kUrgentEnd = std::numeric_limits<Rank>::min() / 2;
inline constexpr Rank kLost = std::numeric_limits<Rank>::max();

// What is known of a request when it comes in.
struct Arrival {
  WorkTime start = 0;                              // its tag on the fair clock
  WorkTime now = 0;                                // of the fair clock
  absl::Duration cost;                             // lone time; zero when unknown
  absl::Duration left = absl::InfiniteDuration();  // until its deadline
  int32_t priority = 0;
};

// Least laxity first, with the laxity that a request has when it comes in: its due time less its
// own time. It does not change while the request waits or runs, so equal requests run one after
// another and never in turns.
inline Rank RankOf(const PolicyOptions& options, const Arrival& arrival) {
  if (options.policy != Policy::kHanmo) return arrival.start;
  const auto ns = [](absl::Duration time) { return absl::ToInt64Nanoseconds(time); };
  Rank rank = arrival.start + ns(arrival.cost * (options.stretch - 1));
  if (arrival.left != absl::InfiniteDuration()) {
    rank = std::min(rank, arrival.now + ns(arrival.left - arrival.cost));
  }
  return rank - arrival.priority * ns(options.priority_step);
}

// Of a request that must run now to meet its deadline: before all others, in order of deadlines.
inline Rank UrgentRank(absl::Time deadline) {
  return std::min(kUrgentEnd - 1, std::numeric_limits<Rank>::min() + absl::ToUnixNanos(deadline));
}

// Samples that may share a step: everything else about them may differ.
struct BatchKey {
  ModelId model = 0;
  StepKind kind = StepKind::kText;
  uint32_t width = 0;  // pixels; 0 where the tensor shape does not depend on it
  uint32_t height = 0;
  uint32_t variant = 0;    // of the weights that the step needs
  SampleHandle alone = 0;  // a suspect of a worker's death shares with nobody

  friend bool operator==(const BatchKey&, const BatchKey&) = default;
};

// Samples of one key on one worker that could run now. Where a model writes and paints in the same
// steps, its samples come twice, as texts and as pictures.
struct Candidates {
  bool texts = false;  // some of them are texts that are read while they are written
  Rank first = kLost;  // of those samples
  // What the worker spent on each text of this model. Texts of several models take turns, with
  // equal shares of its time: one that waited for another to end would stand still before its
  // reader.
  absl::Duration spent;
};

// What a worker spent on each kind lately.
struct Shares {
  absl::Duration text;
  absl::Duration pictures;
};

// Index of the batch to run; `candidates` is not empty. Between texts and pictures the one that is
// behind its share goes first; within a kind the urgent, then texts in turns and pictures by rank.
inline size_t ChooseBatch(const PolicyOptions& options, const Shares& shares,
                          absl::Span<const Candidates> candidates) {
  const bool text_is_due =
      shares.text * (1 - options.text_share) <= shares.pictures * options.text_share;
  const auto order = [&](const Candidates& c) {
    const bool fair = options.policy == Policy::kHanmo;
    const bool in_turns = fair && c.texts && c.first > kUrgentEnd;
    return std::make_tuple(fair && c.texts != text_is_due, c.first > kUrgentEnd,
                           in_turns ? c.spent : absl::ZeroDuration(), c.first);
  };
  size_t best = 0;
  for (size_t i = 1; i < candidates.size(); ++i) {
    if (order(candidates[i]) < order(candidates[best])) best = i;
  }
  return best;
}

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_POLICY_H_
