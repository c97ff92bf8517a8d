#include "server/batcher/cost.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <tuple>
#include <utility>

namespace hanmo {
namespace {

constexpr double kForget = 0.99;    // weight of a step against the next one, for the line
constexpr double kNewest = 0.15;    // weight of the newest step in an average
constexpr uint16_t kEnough = 2;     // steps that make an average
constexpr uint64_t kFresh = 256;    // steps after which an average is out of date
constexpr uint64_t kProbe = 32;     // every so many steps twice the knee is tried
constexpr double kOutlier = 4;      // a step counts as this many times the expected time at most
constexpr double kNearBest = 0.97;  // of the best throughput, at the knee
constexpr size_t kMaxCurves = 512;  // of some 3 KiB each
constexpr double kPays = 1.03;      // throughput of the last doubling for which another is tried

double Averaged(double average, double value, uint32_t count) {
  return average + (value - average) * std::max(kNewest, 1.0 / (count + 1));
}

}  // namespace

void CostCurve::Fit(double rows, double seconds) {
  weight_ = weight_ * kForget + 1;
  x_ = x_ * kForget + rows;
  xx_ = xx_ * kForget + rows * rows;
  y_ = y_ * kForget + seconds;
  xy_ = xy_ * kForget + rows * seconds;
  const double spread = weight_ * xx_ - x_ * x_;
  if (spread < 1e-6 * weight_ * xx_) {
    // One number of rows only: all of it is taken for the price of rows, unless it was known
    // better.
    const double known = base_ + per_row_ * x_ / weight_;
    if (known > 0) {
      base_ *= y_ / weight_ / known;
      per_row_ *= y_ / weight_ / known;
    } else {
      per_row_ = x_ > 0 ? y_ / x_ : 0;
    }
    return;
  }
  per_row_ = (weight_ * xy_ - x_ * y_) / spread;
  base_ = (y_ - per_row_ * x_) / weight_;
  if (per_row_ < 0) {
    per_row_ = 0;
    base_ = y_ / weight_;
  } else if (base_ < 0) {
    base_ = 0;
    per_row_ = xy_ / xx_;
  }
}

void CostCurve::Learn(StepLoad load, absl::Duration time) {
  double seconds = absl::ToDoubleSeconds(time);
  const double expected = absl::ToDoubleSeconds(Predict(load));
  if (steps_ >= kEnough && expected > 0) seconds = std::min(seconds, kOutlier * expected);
  ++steps_;
  if (load.prefill_tokens > 0) {
    const double tokens = std::max(0.0, seconds - RowSeconds(load.rows)) / load.prefill_tokens;
    per_token_ = Averaged(per_token_, tokens, token_steps_);
    token_steps_ = std::min<uint32_t>(token_steps_ + 1, 1000);
    return;
  }
  Fit(load.rows, seconds);
  if (load.rows > kMaxRows) return;
  Cell& cell = cells_[load.rows];
  cell.seconds = static_cast<float>(Averaged(cell.seconds, seconds, cell.count));
  cell.count = std::min<uint16_t>(cell.count + 1, 1000);
  cell.last = steps_;
  if (cell.count < kEnough) return;
  fewest_measured_ = most_measured_ == 0 ? load.rows : std::min(fewest_measured_, load.rows);
  most_measured_ = std::max(most_measured_, load.rows);
}

double CostCurve::RowSeconds(double rows) const {
  if (rows <= kMaxRows) {
    const Cell& cell = cells_[static_cast<size_t>(rows)];
    if (cell.count >= kEnough && steps_ - cell.last <= kFresh) return cell.seconds;
  }
  return base_ + per_row_ * rows;
}

absl::Duration CostCurve::Predict(StepLoad load) const {
  return absl::Seconds(RowSeconds(load.rows) + per_token_ * load.prefill_tokens);
}

void CostCurve::LearnBytes(uint32_t rows, uint64_t bytes) {
  if (rows > kMaxRows || bytes == 0) return;
  cells_[rows].bytes = std::max(cells_[rows].bytes, bytes);
  most_weighed_ = std::max(most_weighed_, rows);
}

uint64_t CostCurve::PredictBytes(uint32_t rows) const {
  if (most_weighed_ == 0) return 0;
  if (rows > most_weighed_) return cells_[most_weighed_].bytes * rows / most_weighed_;
  while (cells_[rows].bytes == 0) ++rows;
  return cells_[rows].bytes;
}

uint32_t CostCurve::Knee(uint32_t most) const {
  if (most_measured_ == 0) return 0;
  const uint32_t known = std::min(most, most_measured_);
  const auto throughput = [this](uint32_t rows) { return rows / std::max(1e-9, RowSeconds(rows)); };
  double best = 0;
  for (uint32_t rows = 1; rows <= known; ++rows) best = std::max(best, throughput(rows));
  // One picture with guidance has two rows: where there are only such, fewer are no batch.
  uint32_t knee = std::min(fewest_measured_, known);
  while (knee < known && throughput(knee) < kNearBest * best) ++knee;
  // Where the largest batch measured still pays, a larger one is worth a try. A little is enough:
  // over four doublings it adds up.
  const bool pays = throughput(known) > kPays * throughput(std::max<uint32_t>(1, known / 2));
  if (known < most && (knee > known / 2 || pays)) return std::min(most, 2 * known);
  // What was bad once, on a busy machine say, may be good now.
  return steps_ % kProbe == kProbe - 1 ? std::min(most, 2 * knee) : knee;
}

CostCurve& StepCosts::CurveOf(const CostKey& key) {
  if (curves_.size() >= kMaxCurves && !curves_.contains(key)) {
    auto least = curves_.end();
    for (auto it = curves_.begin(); it != curves_.end(); ++it) {
      if (it->first.width == 0) continue;
      if (least == curves_.end() || it->second.steps() < least->second.steps()) least = it;
    }
    if (least != curves_.end()) curves_.erase(least);
  }
  return curves_[key];
}

const CostCurve* StepCosts::Nearest(const CostKey& key, double* times) const {
  *times = 1;
  if (const CostCurve* curve = Find(key)) return curve;
  const double pixels = double{1} * key.width * key.height;
  if (pixels == 0) return nullptr;
  const CostCurve* nearest = nullptr;
  for (const auto& [other, curve] : curves_) {
    if (other.model != key.model || other.kind != key.kind || other.width == 0) continue;
    const double ratio = pixels / (double{1} * other.width * other.height);
    if (nearest == nullptr || std::abs(std::log(ratio)) < std::abs(std::log(*times))) {
      nearest = &curve;
      *times = ratio;
    }
  }
  return nearest;
}

absl::Duration StepCosts::Predict(const CostKey& key, StepLoad load) const {
  double times = 1;
  const CostCurve* curve = Nearest(key, &times);
  if (curve == nullptr) return absl::ZeroDuration();
  return times == 1 ? curve->Predict(load) : curve->Predict(load) * times;
}

uint64_t StepCosts::PredictBytes(const CostKey& key, uint32_t rows) const {
  double times = 1;
  const CostCurve* curve = Nearest(key, &times);
  if (curve == nullptr) return 0;
  return static_cast<uint64_t>(static_cast<double>(curve->PredictBytes(rows)) * times);
}

uint32_t StepCosts::RowsWithin(const CostKey& key, uint64_t bytes, uint32_t most) const {
  while (most > 1 && PredictBytes(key, most) > bytes) --most;
  return most;
}

uint32_t StepCosts::Knee(const CostKey& key, uint32_t most) const {
  const CostCurve* curve = Find(key);
  return curve == nullptr ? 0 : curve->Knee(most);
}

absl::Duration StepCosts::Lone(ModelId model, const PictureJob& job) const {
  const StepLoad load{RowsOf(job), 0};
  return Predict({model, StepKind::kTextEncode, 0, 0}, load) +
         Predict({model, StepKind::kDenoise, job.width, job.height}, load) * job.steps +
         Predict({model, StepKind::kVaeDecode, job.width, job.height}, {1, 0});
}

absl::Duration StepCosts::Lone(ModelId model, const TextJob& job) const {
  const CostKey key{model, StepKind::kText, 0, 0};
  auto length = lengths_.find(model);
  const bool known = job.paints() || length == lengths_.end();
  const double tokens = known ? job.max_tokens : std::min<double>(job.max_tokens, length->second);
  absl::Duration time =
      Predict(key, {0, static_cast<uint32_t>(job.prompt.size())}) + Predict(key, {1, 0}) * tokens;
  if (const PictureInput& in = job.picture; in.rgb != nullptr) {
    time += Predict({model, StepKind::kPictureEncode, in.width, in.height}, {1, 0});
  }
  if (!job.paints()) return time;
  return time + Predict({model, StepKind::kVaeDecode, job.paint_width, job.paint_height}, {1, 0});
}

void DelayModel::Learn(absl::Duration predicted, absl::Duration took) {
  // Robbins and Monro's steps towards a quantile: up when one is late, a nineteenth of it down when
  // one is not.
  constexpr double kQuantile = 0.95;
  constexpr double kStep = 0.02;
  const bool late = took > Of(predicted);
  factor_ = std::clamp(factor_ + kStep * (kQuantile - (late ? 0 : 1)), 0.5, 2.0);
}

void Pace::Learn(absl::Time now, absl::Duration lone, bool backlog) {
  constexpr double kMemory = 60;  // seconds
  if (since_ < now && lone > absl::ZeroDuration()) {
    const double passed = absl::ToDoubleSeconds(now - since_);
    const double kept = std::exp(-passed / kMemory);
    done_ = kept * done_ + absl::ToDoubleSeconds(lone);
    passed_ = kept * passed_ + passed;
  } else if (since_ == now) {
    done_ += absl::ToDoubleSeconds(lone);
  }
  since_ = backlog ? now : absl::InfiniteFuture();
}

double Pace::Rate(uint32_t workers) const {
  constexpr double kPrior = 1;  // second
  return (done_ + kPrior * workers) / (passed_ + kPrior);
}

void StepCosts::LearnLength(ModelId model, uint32_t tokens) {
  auto [length, first] = lengths_.try_emplace(model, tokens);
  if (!first) length->second = Averaged(length->second, tokens, 1000);
}

void StepCosts::Copy(ModelId from, ModelId to) {
  std::vector<std::pair<CostKey, CostCurve>> copies;
  for (const auto& [key, curve] : curves_) {
    if (key.model == from) copies.emplace_back(key, curve);
  }
  for (auto& [key, curve] : copies) {
    key.model = to;
    curves_.insert_or_assign(key, std::move(curve));
  }
  if (auto length = lengths_.find(from); length != lengths_.end()) {
    const double tokens = length->second;
    lengths_[to] = tokens;
  }
}

void StepCosts::Forget(ModelId model) {
  absl::erase_if(curves_, [model](const auto& entry) { return entry.first.model == model; });
  lengths_.erase(model);
}

std::vector<StepCosts::Description> StepCosts::Describe(ModelId model, uint32_t most) const {
  std::vector<Description> described;
  for (const auto& [key, curve] : curves_) {
    if (key.model != model) continue;
    const uint32_t knee = std::max<uint32_t>(1, curve.Knee(most));
    described.push_back({key, knee, curve.Predict({1, 0}), curve.Predict({knee, 0}),
                         curve.PredictBytes(1), curve.PredictBytes(knee), curve.steps()});
  }
  // The most measured first.
  std::sort(described.begin(), described.end(), [](const auto& a, const auto& b) {
    return std::make_tuple(b.steps, a.key.kind, a.key.width, a.key.height) <
           std::make_tuple(a.steps, b.key.kind, b.key.width, b.key.height);
  });
  return described;
}

}  // namespace hanmo
