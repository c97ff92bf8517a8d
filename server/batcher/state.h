// What the batcher knows of every request, sample and worker. Only the batcher's thread touches it.
#ifndef HANMO_SERVER_BATCHER_STATE_H_
#define HANMO_SERVER_BATCHER_STATE_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/node_hash_map.h"
#include "absl/time/time.h"
#include "server/batcher/cost.h"
#include "server/batcher/fair_clock.h"
#include "server/batcher/pages.h"
#include "server/batcher/policy.h"
#include "server/batcher/request.h"
#include "server/batcher/sink.h"
#include "server/batcher/worker.h"

namespace hanmo {

struct ActiveRequest;
struct ActiveWorker;
struct Lane;
struct Residence;

// Where a sample is. kHeld: it gave its place back because the reader is slow, and waits for
// Batcher::Wake.
enum class SampleState { kWaiting, kAboard, kReturning, kHeld, kEnded };

struct Sample {
  // --- Set at admission.
  ActiveRequest* request = nullptr;
  uint32_t index = 0;
  SampleJob job;

  SampleState state = SampleState::kWaiting;

  // --- Progress that the client has seen. Survives a worker's death.
  std::vector<uint32_t> emitted;  // texts
  bool encoded = false;           // the prompt of a picture or the picture of a prompt, once
  uint32_t steps_seen = 0;        // pictures: most model calls done, before any redoing
  std::string save_point;
  uint32_t saved_steps = 0;

  // --- One stay aboard a worker. The handle is new each time: late results are nobody's.
  SampleHandle handle = 0;
  ActiveWorker* worker = nullptr;
  Residence* home = nullptr;  // its model there
  absl::Time parked_since = absl::InfiniteFuture();
  Lane* lane = nullptr;      // where it waits for its next step
  uint64_t begun_after = 0;  // deaths of workers before this stay
  // What the steps sent so far will have done.
  uint32_t known_tokens = 0;    // texts: prompt and emitted tokens at Begin
  uint32_t planned_cached = 0;  // tokens run; one for each decode row under way
  uint32_t planned_tokens = 0;  // emitted in all, likewise
  uint32_t planned_drafts = 0;  // what these rows may run and emit on top
  uint32_t cached = 0;          // tokens that the results so far have run
  PageTable table;
  size_t pages_sent = 0;  // of its pages, known to the worker
  bool planned_encode = false;
  bool picture_read = false;            // of a text about a picture: that step is done
  uint32_t steps_total = 0;             // model calls in all; 0 until the text encoder has run
  std::vector<VariantChange> variants;  // of the model calls; known likewise
  uint32_t planned_steps = 0;
  bool planned_decode = false;

  // --- Suspected of a worker's death: runs alone until Progress() reaches this; 0 when innocent.
  uint64_t suspect_until = 0;

  absl::Time prefill_start;
  absl::Time first_token;
  absl::Time last_token = absl::InfinitePast();

  const TextJob* text() const { return std::get_if<TextJob>(&job); }
  const PictureJob* picture() const { return std::get_if<PictureJob>(&job); }
  bool parked() const { return parked_since != absl::InfiniteFuture(); }
  bool suspect() const { return suspect_until > 0; }
  // Of the weights, for the next denoising step.
  uint32_t variant() const {
    uint32_t variant = 0;
    for (const VariantChange& change : variants) {
      if (change.first_call <= planned_steps) variant = change.variant;
    }
    return variant;
  }
  // A picture's last denoising step is sent.
  bool denoised() const { return steps_total > 0 && planned_steps >= steps_total; }

  // Two numbers that grow with everything done, or sent.
  uint64_t Progress() const { return emitted.size() + steps_seen + (encoded ? 1 : 0); }
  uint64_t PlannedProgress() const {
    return planned_tokens + planned_drafts + planned_steps + (planned_encode ? 1 : 0) +
           (planned_decode ? 1 : 0);
  }
};

struct ActiveRequest {
  RequestId id = 0;
  ModelId model = 0;
  std::shared_ptr<Sink> sink;
  absl::Time arrival;
  absl::Time deadline;
  std::vector<std::unique_ptr<Sample>> samples;
  std::string tenant;        // whose share of the fair clock it takes
  double weight = 1;         // of the tenant
  absl::Duration cost;       // predicted when it came in; zero when nothing was known
  absl::Duration predicted;  // from arrival to end, with what was ahead; zero without a deadline
  WorkTime start = 0;        // on the fair clock
  uint64_t salt = 0;         // of its tenant and source: texts of different salts share no pages
  Rank rank = 0;
  absl::Time latest_start = absl::InfiniteFuture();  // in Core::urgent_
  size_t next_to_begin = 0;                          // samples before it left the queue
  size_t live = 0;                                   // samples not ended
  bool started = false;                              // its first step was sent
  uint64_t last_death = 0;                           // the latest that found it in a step
  uint32_t position = UINT32_MAX;                    // last told to the sink
  Usage usage;
  // Its share of the step under evaluation.
  uint64_t weighed_step = 0;
  uint64_t step_bytes = 0;

  bool queued() const { return next_to_begin == 0; }
  bool waiting() const { return next_to_begin < samples.size(); }
};

// The samples of one batch key on one worker that could take a step now, lowest rank first.
struct Lane {
  BatchKey key;
  std::vector<Sample*> ready;
  uint32_t texts = 0;  // of them that take a step of tokens and are no pictures

  // Captions and pictures, of a model that writes and paints in the same steps.
  bool mixed() const { return texts > 0 && texts < ready.size(); }
  bool writes(const Sample& sample) const {
    return key.kind == StepKind::kText && !sample.text()->paints();
  }
};

// Chunks of prompts do not become shorter, in tokens.
inline constexpr uint32_t kLeastPrefill = 16;

// A command that was sent and is not answered yet: a step, or a slice more of one.
struct InFlight {
  Step step;  // of a slice more only the id
  bool resumes = false;
  bool alone = false;
  uint32_t texts = 0;       // ready for it, of a step of texts; 0: it has the share of pictures
  uint64_t sent_after = 0;  // deaths of workers
  // It was sent while another ran, or as soon as that one's result was there.
  bool follows = false;
  CostKey cost;
  StepLoad load;
  uint32_t most_prefill = 0;  // Residence::most_prefill when it was sent
  absl::Duration predicted;   // of this command alone
  // Of the slices before.
  absl::Duration device_time;
  absl::Duration idle_time;
  // Of a step in slices: to be saved when it has ended, for until then it has not happened.
  std::vector<SampleHandle> saves;
};

// The picture step that a worker runs in slices, until it is known to have ended.
struct SlicedStep {
  uint64_t id = 0;
  StepKind kind = StepKind::kDenoise;
  Rank rank = 0;
  uint32_t unanswered = 0;     // commands
  absl::Duration left;         // predicted, beyond the slices sent
  std::optional<InFlight> at;  // set once it is known to be suspended
};

// One model on one worker.
struct Residence {
  ModelCapacity capacity;
  PagePool pages;
  uint32_t aboard = 0;
  // Prompt tokens in one step at most; fewer after a step that ran out of memory.
  uint32_t most_prefill = UINT32_MAX;
  absl::Duration texts_spent;            // on steps of texts, on ActiveWorker::texts_clock
  std::optional<uint32_t> variant;       // of the weights, in the last denoising step sent
  uint32_t reported_pages = UINT32_MAX;  // used, as last told to the observer
  double listed_load = 0;                // as ModelQueue::places has it
};

struct ActiveWorker {
  WorkerId id = 0;
  std::shared_ptr<WorkerLink> link;
  absl::node_hash_map<ModelId, Residence> models;
  StepCosts* costs = nullptr;   // of this kind of device
  std::vector<Sample*> aboard;  // lowest rank first
  std::list<Lane> lanes;
  std::deque<InFlight> in_flight;
  std::optional<SlicedStep> sliced;
  Shares shares;
  // What models with texts have had: where a model begins that had none, so that it owes and is
  // owed nothing.
  absl::Duration texts_clock;
  double load = 0;                  // predicted seconds of what is aboard
  bool listed = false;              // in Core::touched_
  bool closed = false;              // static policy: nobody joins until the last has left
  std::vector<SampleHandle> drops;  // to be sent
  // Shapes that ran out of memory: samples in one step at most.
  absl::flat_hash_map<CostKey, size_t> most_samples;
  absl::Time answered = absl::InfinitePast();  // when the last result came
  uint64_t memory_free = 0;                    // bytes, as last told; 0: unknown
  uint64_t next_step = 1;
  // Deaths of other workers that it certainly outlived.
  uint64_t outlived = 0;
};

// The requests of one model that have samples to begin, and its samples that lost their place.
struct ModelQueue {
  std::vector<Sample*> returning;  // lowest rank first; they go before the waiting ones
  absl::btree_map<std::pair<Rank, RequestId>, ActiveRequest*> waiting;
  // The workers that have the model, least loaded first.
  absl::btree_set<std::pair<double, WorkerId>> places;
  StepCosts* costs = nullptr;  // of the worker that had the model first
  bool stirred = false;        // something may begin now that could not before
  uint32_t queued = 0;         // requests of which no sample has begun
  uint32_t running = 0;        // the others
  absl::Duration queued_work;  // predicted, of the queued
  bool learned = false;        // costs changed since they were told
  absl::Time costs_told = absl::InfinitePast();
  DelayModel delay;
  Pace pace;
  bool ever_ready = false;
  bool failed = false;
  std::function<void()> wanted;  // set while it is taken from the workers
  bool moved = false;            // positions changed in this tick
  bool changed = false;          // queued or running changed in this tick
};

// Rows of the network that the sample takes in a step of its kind.
inline uint32_t RowsIn(StepKind kind, const Sample& sample) {
  const PictureJob* picture = sample.picture();
  return picture == nullptr || kind == StepKind::kVaeDecode ? 1 : RowsOf(*picture);
}

// What comes before a sample's other steps, once.
inline bool Encodes(StepKind kind) {
  return kind == StepKind::kTextEncode || kind == StepKind::kPictureEncode;
}

// Tokens of the source with those that fill its last page.
inline uint32_t PaddedSource(const TextJob& text, uint32_t page_tokens) {
  if (page_tokens == 0) return text.source_tokens;
  return (text.source_tokens + page_tokens - 1) / page_tokens * page_tokens;
}

// The samples aboard any worker by handle. A handle is a place in the table, used again by others,
// and a number that is never used again.
class AboardTable {
 public:
  SampleHandle Add(Sample* sample) {
    if (free_.empty()) {
      free_.push_back(static_cast<uint32_t>(places_.size()));
      places_.emplace_back();
    }
    const uint32_t place = free_.back();
    free_.pop_back();
    places_[place] = {next_++ << kPlaceBits | place, sample};
    return places_[place].handle;
  }
  void Remove(SampleHandle handle) {
    const auto place = static_cast<uint32_t>(handle & kPlaces);
    places_[place] = {};
    free_.push_back(place);
  }
  // Null when it has left.
  Sample* Find(SampleHandle handle) const {
    const uint64_t place = handle & kPlaces;
    if (place >= places_.size() || places_[place].handle != handle) return nullptr;
    return places_[place].sample;
  }

 private:
  static constexpr int kPlaceBits = 24;
  static constexpr uint64_t kPlaces = (uint64_t{1} << kPlaceBits) - 1;
  struct Place {
    SampleHandle handle = 0;
    Sample* sample = nullptr;
  };

  std::vector<Place> places_;
  std::vector<uint32_t> free_;
  uint64_t next_ = 1;
};

// The order of everything: rank, then who came first.
inline bool GoesBefore(const Sample* a, const Sample* b) {
  return std::make_tuple(a->request->rank, a->request->id, a->index) <
         std::make_tuple(b->request->rank, b->request->id, b->index);
}

inline void InsertByRank(Sample* sample, std::vector<Sample*>& samples) {
  samples.insert(std::upper_bound(samples.begin(), samples.end(), sample, GoesBefore), sample);
}

inline void Remove(Sample* sample, std::vector<Sample*>& samples) {
  samples.erase(std::lower_bound(samples.begin(), samples.end(), sample, GoesBefore));
}

// Takes the sample out of the lane in which it waits, if any.
inline void Unline(Sample* sample) {
  if (sample->lane == nullptr) return;
  Remove(sample, sample->lane->ready);
  if (sample->lane->writes(*sample)) --sample->lane->texts;
  sample->lane = nullptr;
}

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_STATE_H_
