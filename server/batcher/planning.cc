// Which step runs next on a worker, and with whom.
#include <algorithm>
#include <optional>
#include <utility>

#include "server/batcher/core.h"

namespace hanmo {
namespace {

// A step is cut when it is predicted to take so many slices.
constexpr double kWorthCutting = 1.5;

// Shorter slices would cost more than they bring.
constexpr absl::Duration kShortestSlice = absl::Milliseconds(5);

// Of the memory that is free, a step's share: the rest is for what is not counted, and for others.
constexpr double kMemoryShare = 0.9;

bool Prefills(const Sample& sample) { return sample.planned_cached < sample.known_tokens; }

// The picture that the text is about must be read, unless others' pages hold all of it.
bool ReadsPicture(const Sample& sample) {
  const TextJob& text = *sample.text();
  return text.picture.rgb != nullptr && !sample.planned_encode &&
         sample.planned_cached < text.source_tokens;
}

std::optional<BatchKey> NextTextBatch(const Sample& sample, BatchKey key) {
  const TextJob& text = *sample.text();
  if (text.paints() && sample.planned_tokens >= text.max_tokens) {
    if (sample.planned_decode) return std::nullopt;
    key.kind = StepKind::kVaeDecode;
    key.width = text.paint_width;
    key.height = text.paint_height;
  } else if (ReadsPicture(sample)) {
    key.kind = StepKind::kPictureEncode;
    key.width = text.picture.width;
    key.height = text.picture.height;
  } else if (sample.planned_encode && !sample.picture_read) {
    // The step that reads it may be cut into slices, and texts are run between them.
    return std::nullopt;
  } else {
    key.kind = StepKind::kText;
    if (!Prefills(sample) && sample.planned_tokens >= text.max_tokens) return std::nullopt;
  }
  return key;
}

// The batch that takes the sample further; nothing while it must wait for a result.
std::optional<BatchKey> NextBatch(const Sample& sample) {
  if (sample.parked()) return std::nullopt;
  BatchKey key;
  key.model = sample.request->model;
  key.alone = sample.suspect() ? sample.handle : 0;
  if (sample.text() != nullptr) return NextTextBatch(sample, key);
  const PictureJob& picture = *sample.picture();
  if (!sample.planned_encode) {
    key.kind = StepKind::kTextEncode;
    return key;
  }
  if (sample.steps_total == 0 || sample.planned_decode) return std::nullopt;
  key.width = picture.width;
  key.height = picture.height;
  key.kind = sample.denoised() ? StepKind::kVaeDecode : StepKind::kDenoise;
  if (key.kind == StepKind::kDenoise) key.variant = sample.variant();
  return key;
}

// Tokens of the source, with its padding, that are still to be run.
uint32_t SourceLeft(const Sample& sample) {
  const uint32_t source = PaddedSource(*sample.text(), sample.home->capacity.page_tokens);
  return source - std::min(source, sample.planned_cached);
}

bool WantsPreview(const PictureJob& job, const Sample& sample) {
  return job.preview_every_steps > 0 && sample.planned_steps % job.preview_every_steps == 0 &&
         sample.planned_steps > sample.steps_seen && sample.planned_steps < sample.steps_total;
}

}  // namespace

void Batcher::Core::Line(Sample* sample) {
  const std::optional<BatchKey> key = NextBatch(*sample);
  Lane* lane = sample->lane;
  if (lane != nullptr && key.has_value() && lane->key == *key) return;
  Unline(sample);
  if (!key.has_value()) return;
  std::list<Lane>& lanes = sample->worker->lanes;
  const auto same = [&](const Lane& other) { return other.key == *key; };
  auto found = std::find_if(lanes.begin(), lanes.end(), same);
  if (found == lanes.end()) {
    // Nobody points to an empty one.
    const auto empty = [](const Lane& other) { return other.ready.empty(); };
    found = std::find_if(lanes.begin(), lanes.end(), empty);
    if (found == lanes.end()) found = lanes.emplace(lanes.end());
    found->key = *key;
  }
  InsertByRank(sample, found->ready);
  if (found->writes(*sample)) ++found->texts;
  sample->lane = &*found;
}

void Batcher::Core::Plan(ActiveWorker& worker) {
  ForgetSliced(worker);
  while (worker.in_flight.size() < options_.steps_in_flight) {
    if (!worker.in_flight.empty() && worker.in_flight.back().alone) return;
    CollectCandidates(worker);
    if (candidates_.empty()) return;
    const size_t chosen = ChooseBatch(options_.policy, worker.shares, candidates_);
    Lane* lane = lanes_[chosen];
    if (lane == nullptr) {
      SendSlice(worker);
      continue;
    }
    // A suspect waits until the steps of the others are back.
    if (lane->key.alone != 0 && !worker.in_flight.empty()) return;
    SendStep(worker, *lane, candidates_[chosen].texts);
  }
}

void Batcher::Core::CollectCandidates(ActiveWorker& worker) {
  candidates_.clear();
  lanes_.clear();
  bool texts = false;
  bool pictures = worker.sliced.has_value();
  for (Lane& lane : worker.lanes) {
    if (lane.ready.empty()) continue;
    texts = texts || lane.texts > 0;
    pictures = pictures || lane.texts < lane.ready.size();
    const bool alone = lane.key.alone != 0;
    // Beside a step in slices there are only tokens that may have company.
    if (worker.sliced && (lane.key.kind != StepKind::kText || alone)) continue;
    // A suspect is cleared by a few steps alone, and then it can share. Whoever waits for its
    // prompt to be encoded has begun to be in the next batch, which would run without it: that
    // takes many times as long as an encoder.
    const bool first = alone || Encodes(lane.key.kind);
    const auto add = [&](bool as_texts, Rank rank) {
      if (first) rank = std::min(rank, kUrgentEnd);
      candidates_.push_back(
          {as_texts, rank, std::max(lane.ready.front()->home->texts_spent, worker.texts_clock)});
      lanes_.push_back(&lane);
    };
    if (lane.mixed()) {
      // What is painted beside captions has the share of pictures, not only their turns.
      add(true, FirstOf(lane, true));
      add(false, FirstOf(lane, false));
    } else {
      add(lane.texts > 0, TurnOf(worker, lane));
    }
  }
  // A slice more before the last one is answered, as long as the step should not have ended by
  // then.
  const auto& sliced = worker.sliced;
  if (sliced && (sliced->unanswered == 0 || sliced->left > absl::ZeroDuration())) {
    candidates_.push_back({false, sliced->rank});
    lanes_.push_back(nullptr);
  }
  // Who had nothing to run has no claim to what was missed.
  if (texts != pictures) worker.shares = {};
}

Rank Batcher::Core::FirstOf(const Lane& lane, bool texts) {
  const auto first = std::find_if(lane.ready.begin(), lane.ready.end(), [&](const Sample* sample) {
    return lane.writes(*sample) == texts;
  });
  return (*first)->request->rank;
}

// A step with other weights than the one before goes behind those that want what is there, as far
// as its laxity bears them: they catch up, and then all change together and share their steps.
Rank Batcher::Core::TurnOf(const ActiveWorker& worker, const Lane& lane) const {
  const ActiveRequest& request = *lane.ready.front()->request;
  const std::optional<uint32_t>& there = lane.ready.front()->home->variant;
  Rank rank = request.rank;
  if (lane.key.kind != StepKind::kDenoise || !there || lane.key.variant == *there) return rank;
  if (rank < kUrgentEnd || rank == kLost) return rank;
  const Rank laxity = absl::ToInt64Nanoseconds(request.cost * (options_.policy.stretch - 1));
  BatchKey same = lane.key;
  same.variant = *there;
  for (const Lane& other : worker.lanes) {
    if (other.ready.empty() || other.key != same) continue;
    const Rank others = other.ready.front()->request->rank;
    if (others <= request.rank + laxity) rank = std::max(rank, others + 1);
  }
  return rank;
}

uint32_t Batcher::Core::MostRows(const ActiveWorker& worker, const BatchKey& key) const {
  const CostKey cost{key.model, key.kind, key.width, key.height};
  uint32_t most = 2 * options_.max_picture_batch;  // all of them guided
  // A fixed size is what static batching has.
  if (options_.policy.policy != Policy::kStatic) {
    const uint32_t knee = worker.costs->Knee(cost, most);
    most = knee == 0 ? 2 * options_.cold_picture_batch : std::min(knee, most);
  }
  if (worker.memory_free == 0) return most;
  const auto budget = static_cast<uint64_t>(kMemoryShare * static_cast<double>(worker.memory_free));
  return worker.costs->RowsWithin(cost, budget, most);
}

void Batcher::Core::SendStep(ActiveWorker& worker, Lane& lane, bool as_texts) {
  const BatchKey key = lane.key;
  const Rank lane_rank = lane.ready.front()->request->rank;
  const size_t max_batch = worker.models.at(key.model).capacity.max_batch;
  InFlight sent;
  sent.step.id = worker.next_step++;
  sent.step.model = key.model;
  sent.step.kind = key.kind;
  sent.alone = key.alone != 0;
  sent.texts = as_texts ? lane.texts : 0;
  sent.sent_after = deaths_;
  sent.cost = {key.model, key.kind, key.width, key.height};
  sent.most_prefill = worker.models.at(key.model).most_prefill;
  const size_t most = std::min({max_batch, lane.ready.size(), MostSamples(worker, sent.cost)});
  sent.step.rows.reserve(most);
  rows_.clear();
  if (!lane.mixed()) {
    rows_.assign(lane.ready.begin(), lane.ready.end());
  } else {
    // Should there not be room for all, those whose turn it is go first.
    for (const bool texts : {as_texts, !as_texts}) {
      for (Sample* sample : lane.ready) {
        if (lane.writes(*sample) == texts && rows_.size() < most) rows_.push_back(sample);
      }
    }
  }
  if (key.kind == StepKind::kText) {
    // First those that a reader watches.
    AddDecodeRows(most, sent);
    AddPrefillRows(worker, lane, most, sent);
  } else {
    AddPictureRows(lane, std::min<size_t>(most, options_.max_picture_batch), MostRows(worker, key),
                   sent);
  }
  // The only one that could run made room for others: they may run now.
  if (sent.step.rows.empty()) return;
  sent.follows = Follows(worker);
  if (key.kind == StepKind::kDenoise) worker.models.at(key.model).variant = key.variant;
  sent.predicted = worker.costs->Predict(sent.cost, sent.load);
  if (key.kind != StepKind::kText && !sent.alone) CutIntoSlices(worker, lane_rank, &sent);
  (sent.texts > 0 ? worker.shares.text : worker.shares.pictures) += sent.predicted;
  if (sent.texts > 0) {
    absl::Duration& spent = worker.models.at(key.model).texts_spent;
    worker.texts_clock = spent = std::max(spent, worker.texts_clock);
    spent += sent.predicted / sent.texts;
  }
  if (sent.step.budget > absl::ZeroDuration()) sent.saves = std::exchange(saves_, {});
  worker.in_flight.push_back(std::move(sent));
  worker.link->Run(worker.in_flight.back().step);
  if (!saves_.empty()) worker.link->Save(saves_);
  saves_.clear();
}

bool Batcher::Core::Follows(const ActiveWorker& worker) const {
  return !worker.in_flight.empty() || worker.answered == now_;
}

void Batcher::Core::CutIntoSlices(ActiveWorker& worker, Rank rank, InFlight* sent) {
  const absl::Duration budget = SliceBudget(worker);
  if (budget == absl::ZeroDuration() || sent->predicted <= budget * kWorthCutting) return;
  sent->step.budget = budget;
  worker.sliced.emplace();
  worker.sliced->id = sent->step.id;
  worker.sliced->kind = sent->step.kind;
  worker.sliced->rank = rank;
  worker.sliced->unanswered = 1;
  worker.sliced->left = sent->predicted - budget;
  sent->predicted = budget;
}

void Batcher::Core::SendSlice(ActiveWorker& worker) {
  SlicedStep& sliced = *worker.sliced;
  InFlight sent;
  sent.step.id = sliced.id;
  sent.step.kind = sliced.kind;
  sent.resumes = true;
  sent.follows = Follows(worker);
  sent.sent_after = deaths_;
  sent.predicted = SliceBudget(worker);
  sliced.left -= sent.predicted;
  ++sliced.unanswered;
  worker.shares.pictures += sent.predicted;
  const absl::Duration budget = sent.predicted;
  worker.in_flight.push_back(std::move(sent));
  worker.link->Resume(sliced.id, budget);
}

absl::Duration Batcher::Core::SliceBudget(const ActiveWorker& worker) const {
  const PolicyOptions& policy = options_.policy;
  if (policy.policy != Policy::kHanmo) return absl::ZeroDuration();
  // Between two steps of texts, what the share leaves for pictures; of several models' steps the
  // mean over their texts, who take equal turns.
  absl::Duration steps;
  uint32_t texts = 0;
  for (const Lane& lane : worker.lanes) {
    if (lane.key.kind != StepKind::kText || lane.texts == 0) continue;
    const auto rows = static_cast<uint32_t>(lane.ready.size());
    steps += worker.costs->Predict({lane.key.model, lane.key.kind, 0, 0}, {rows, 0}) * lane.texts;
    texts += lane.texts;
  }
  if (texts == 0) return policy.slice;
  const absl::Duration between = steps / texts * ((1 - policy.text_share) / policy.text_share);
  return std::clamp(between, std::min(kShortestSlice, policy.slice), policy.slice);
}

void Batcher::Core::ForgetSliced(ActiveWorker& worker) {
  if (!worker.sliced || worker.sliced->unanswered > 0) return;
  // The worker abandons it when the last of its samples is dropped.
  const auto& rows = worker.sliced->at->step.rows;
  const auto lives = [&](const Row& row) { return Find(row.sample, worker) != nullptr; };
  if (std::none_of(rows.begin(), rows.end(), lives)) worker.sliced.reset();
}

void Batcher::Core::AddPictureRows(Lane& lane, size_t most_samples, uint32_t most_rows,
                                   InFlight& sent) {
  const StepKind kind = sent.step.kind;
  for (Sample* sample : rows_) {
    if (sent.step.rows.size() == most_samples) return;
    const uint32_t rows = RowsIn(kind, *sample);
    if (sent.load.rows > 0 && sent.load.rows + rows > most_rows) return;
    sent.load.rows += rows;
    Row row;
    row.sample = sample->handle;
    if (Encodes(kind)) sample->planned_encode = true;
    if (kind == StepKind::kVaeDecode) sample->planned_decode = true;
    if (kind == StepKind::kDenoise) {
      ++sample->planned_steps;
      row.preview = WantsPreview(*sample->picture(), *sample);
      if (sample->planned_steps % options_.save_interval_steps == 0 &&
          sample->planned_steps < sample->steps_total) {
        saves_.push_back(sample->handle);
      }
    }
    // Its place in the next batches is free for another.
    if (sample->denoised()) models_[sample->request->model].stirred = true;
    Line(sample);
    NoteStarted(sample->request);
    sent.step.rows.push_back(std::move(row));
  }
}

void Batcher::Core::AddDecodeRows(size_t most, InFlight& sent) {
  for (Sample* sample : rows_) {
    if (sent.step.rows.size() == most) return;
    // Whoever makes room comes after the one who needs it, or is parked: no row is lost.
    if (sample->state != SampleState::kAboard || Prefills(*sample)) continue;
    if (!TakePages(sample)) continue;
    Row& row = sent.step.rows.emplace_back();
    row.draft_tokens = GrantDrafts(sample);
    FillTextRow(sample, row, sent);
  }
}

void Batcher::Core::AddPrefillRows(ActiveWorker& worker, Lane& lane, size_t most, InFlight& sent) {
  const auto prefilling = static_cast<size_t>(
      std::count_if(rows_.begin(), rows_.end(), [](const Sample* s) { return Prefills(*s); }));
  if (prefilling == 0) return;
  uint32_t budget = PrefillBudget(worker, lane.key, sent.step.rows.size(), prefilling);
  for (Sample* sample : rows_) {
    if (sent.step.rows.size() == most || budget == 0) return;
    if (sample->state != SampleState::kAboard || !Prefills(*sample)) continue;
    const uint32_t source = SourceLeft(*sample);
    // A source can't be cut; at most one at a time is longer than the budget.
    if (source > budget && sent.load.prefill_tokens > 0) continue;
    if (sample->pages_sent == 0) sample->prefill_start = now_;
    Row& row = sent.step.rows.emplace_back();
    row.prefill_tokens =
        std::max(source, std::min(budget, sample->known_tokens - sample->planned_cached));
    budget -= std::min(budget, row.prefill_tokens);
    FillTextRow(sample, row, sent);
  }
}

uint32_t Batcher::Core::PrefillBudget(const ActiveWorker& worker, const BatchKey& key,
                                      size_t decoding, size_t prefilling) const {
  const uint32_t most =
      std::min(options_.prefill_chunk_tokens, worker.models.at(key.model).most_prefill);
  if (decoding == 0 || options_.policy.policy != Policy::kHanmo) return most;
  const CostKey cost{key.model, key.kind, 0, 0};
  const StepLoad alone{static_cast<uint32_t>(decoding), 0};
  const absl::Duration step = worker.costs->Predict(cost, alone);
  const absl::Duration chunk = worker.costs->Predict(cost, {alone.rows, most}) - step;
  if (step <= absl::ZeroDuration() || chunk <= absl::ZeroDuration()) return most;
  const double stretch = options_.policy.prefill_stretch * static_cast<double>(prefilling);
  const double part = absl::FDivDuration(step * stretch, chunk);
  return std::clamp(static_cast<uint32_t>(most * std::min(1.0, part)),
                    std::min(most, kLeastPrefill), most);
}

void Batcher::Core::FillTextRow(Sample* sample, Row& row, InFlight& sent) {
  row.sample = sample->handle;
  const std::vector<uint32_t>& pages = sample->table.pages;
  row.new_pages.assign(pages.begin() + sample->pages_sent, pages.end());
  sample->pages_sent = pages.size();
  sample->planned_cached += std::max<uint32_t>(1, row.prefill_tokens);
  sample->planned_drafts += row.draft_tokens;
  if (!Prefills(*sample)) ++sample->planned_tokens;
  (row.prefill_tokens > 0 ? sent.load.prefill_tokens : sent.load.rows) +=
      std::max<uint32_t>(1, row.prefill_tokens);
  Line(sample);
  NoteStarted(sample->request);
}

void Batcher::Core::NoteStarted(ActiveRequest* request) {
  if (request->started) return;
  request->started = true;
  request->usage.queue_time = now_ - request->arrival;
  observer_.OnStarted(request->model, request->usage.queue_time);
}

}  // namespace hanmo
