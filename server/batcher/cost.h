// What a step costs in time and memory, learned from the steps that ran: nobody profiles anything
// beforehand.
//
// Std and abseil only; not thread-safe.
#ifndef HANMO_SERVER_BATCHER_COST_H_
#define HANMO_SERVER_BATCHER_COST_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/batcher/worker.h"

namespace hanmo {

// Steps of one key differ only in how much is in them.
struct CostKey {
  ModelId model = 0;
  StepKind kind = StepKind::kText;
  uint32_t width = 0;  // pixels; 0 where the cost does not depend on them
  uint32_t height = 0;

  friend bool operator==(const CostKey&, const CostKey&) = default;
  template <typename H>
  friend H AbslHashValue(H h, const CostKey& key) {
    return H::combine(std::move(h), key.model, key.kind, key.width, key.height);
  }
};

// How much is in a step.
struct StepLoad {
  // Rows of the network: 2 for a guided picture, 1 for any other sample that is not prefilling.
  uint32_t rows = 0;
  // Prompt tokens run, over all rows.
  uint32_t prefill_tokens = 0;
};

// Time of one key's steps against their load. Every number of rows seen often enough has its own
// average; between and beyond them a line a + b rows is fitted, with a, b >= 0; prompt tokens come
// on top, at the same price each. Old steps are forgotten, and one step that took many times as
// long as expected counts only as several times as long.
class CostCurve {
 public:
  // Rows above this are counted with the line alone.
  static constexpr uint32_t kMaxRows = 256;

  void Learn(StepLoad load, absl::Duration time);

  // Zero while nothing is known.
  absl::Duration Predict(StepLoad load) const;

  // The fewest rows, of those that occur, whose throughput is within three hundredths of the best
  // at up to `most` rows: more would only add latency. Never above twice the most rows measured so
  // far, so a curve is explored while larger batches pay, and now and then twice as much, to notice
  // when they do. 0 while nothing is known.
  uint32_t Knee(uint32_t most) const;

  // Working memory of a step; 0 bytes say nothing. More rows than measured are taken to need it in
  // proportion; 0 while nothing is known.
  void LearnBytes(uint32_t rows, uint64_t bytes);
  uint64_t PredictBytes(uint32_t rows) const;

  uint64_t steps() const { return steps_; }

 private:
  struct Cell {
    float seconds = 0;
    uint16_t count = 0;
    uint64_t last = 0;   // step in which it was learned
    uint64_t bytes = 0;  // the most
  };

  double RowSeconds(double rows) const;
  void Fit(double rows, double seconds);

  uint64_t steps_ = 0;
  std::array<Cell, kMaxRows + 1> cells_{};            // by rows, of steps without prefill
  uint32_t fewest_measured_ = 0, most_measured_ = 0;  // rows
  uint32_t most_weighed_ = 0;                         // rows whose memory is known
  // Sums of the weighted least squares, and its solution.
  double weight_ = 0, x_ = 0, xx_ = 0, y_ = 0, xy_ = 0;
  double base_ = 0;
  double per_row_ = 0;
  double per_token_ = 0;
  uint32_t token_steps_ = 0;
};

// How long requests take from arrival to end, against what was predicted from lone times and the
// work ahead: batches make them faster, company and later arrivals slower.
class DelayModel {
 public:
  void Learn(absl::Duration predicted, absl::Duration took);
  // What is not exceeded by 19 of 20 requests with this prediction. While nothing is learned a good
  // deal less than predicted: nobody is refused on a guess.
  absl::Duration Of(absl::Duration predicted) const { return predicted * factor_; }

 private:
  double factor_ = 0.8;
};

// What a model gets done while requests wait for it: seconds of lone time in a second.
class Pace {
 public:
  // A request of this lone time has ended; `backlog`: others are still waiting.
  void Learn(absl::Time now, absl::Duration lone, bool backlog);
  // While little is known about one for each of so many workers.
  double Rate(uint32_t workers) const;

 private:
  double done_ = 0, passed_ = 0;  // seconds; what is long ago counts less
  absl::Time since_ = absl::InfiniteFuture();
};

// All curves of one kind of device.
class StepCosts {
 public:
  void Learn(const CostKey& key, StepLoad load, absl::Duration time) {
    if (time > absl::ZeroDuration()) CurveOf(key).Learn(load, time);
  }

  // Zero while nothing is known. Sizes never seen are scaled by pixels from the nearest one.
  absl::Duration Predict(const CostKey& key, StepLoad load) const;
  uint32_t Knee(const CostKey& key, uint32_t most) const;

  // Working memory likewise; steps with prompt tokens are not counted.
  void LearnBytes(const CostKey& key, StepLoad load, uint64_t bytes) {
    if (load.prefill_tokens == 0) CurveOf(key).LearnBytes(load.rows, bytes);
  }
  uint64_t PredictBytes(const CostKey& key, uint32_t rows) const;
  // As many rows as need no more than `bytes`, from 1 to `most`.
  uint32_t RowsWithin(const CostKey& key, uint64_t bytes, uint32_t most) const;

  // Time of one sample alone on the device, from Begin to its end; zero while nothing is known.
  absl::Duration Lone(ModelId model, const PictureJob& job) const;
  absl::Duration Lone(ModelId model, const TextJob& job) const;
  // The length of a finished text, not of a picture: what Lone expects of the next ones.
  void LearnLength(ModelId model, uint32_t tokens);

  // What is known of `from` is taken for `to`, too.
  void Copy(ModelId from, ModelId to);
  void Forget(ModelId model);

  struct Description {
    CostKey key;
    uint32_t knee = 0;  // rows
    absl::Duration one_row;
    absl::Duration knee_rows;
    uint64_t one_row_bytes = 0;
    uint64_t knee_rows_bytes = 0;
    uint64_t steps = 0;  // measured
  };
  // One entry per key with its predicted times, the most measured first; for people.
  std::vector<Description> Describe(ModelId model, uint32_t most) const;

 private:
  const CostCurve* Find(const CostKey& key) const {
    auto found = curves_.find(key);
    return found == curves_.end() ? nullptr : &found->second;
  }

  // Made where there is none. Clients choose the sizes: of too many the least measured is
  // forgotten.
  CostCurve& CurveOf(const CostKey& key);

  // The curve of the key or of the nearest size, and how many times its costs the key's are; null
  // while nothing is known.
  const CostCurve* Nearest(const CostKey& key, double* times) const;

  absl::flat_hash_map<CostKey, CostCurve> curves_;
  absl::flat_hash_map<ModelId, double> lengths_;
};

// Rows of the network that one picture takes.
inline uint32_t RowsOf(const PictureJob& job) { return job.guidance > 1 ? 2 : 1; }

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_COST_H_
