#include "workers/models/token_sampler.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/batcher/non_finite.h"
#include "workers/models/philox.h"

namespace hanmo {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kGreedyTemperature = 1e-5f;

bool AllFinite(absl::Span<const float> logits) {
  // 0 · x is 0 for finite x and NaN otherwise; one sum vectorises where a test per value does not.
  float sum = 0;
  for (const float logit : logits) sum += 0.0f * logit;
  return sum == 0;
}

// log Σ exp(logit), in the order of the ids.
double LogSumExp(absl::Span<const float> logits) {
  const float max = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - max);
  return max + std::log(sum);
}

struct Candidate {
  float logit;
  uint32_t id;
};

bool Likelier(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

// All ids with logit ≥ threshold, likeliest first.
std::vector<Candidate> SortedFrom(absl::Span<const float> logits, float threshold) {
  std::vector<Candidate> candidates;
  for (size_t id = 0; id < logits.size(); ++id) {
    if (logits[id] >= threshold) candidates.push_back({logits[id], static_cast<uint32_t>(id)});
  }
  std::sort(candidates.begin(), candidates.end(), Likelier);
  return candidates;
}

float KthLargest(absl::Span<const float> logits, size_t k) {
  if (k >= logits.size()) return -kInfinity;
  std::vector<float> values(logits.begin(), logits.end());
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(k - 1), values.end(),
                   std::greater<>());
  return values[k - 1];
}

std::vector<TokenCandidate> Likeliest(absl::Span<const float> logits, size_t count,
                                      double log_total) {
  std::vector<TokenCandidate> top;
  if (count == 0) return top;
  for (const Candidate& candidate : SortedFrom(logits, KthLargest(logits, count))) {
    if (top.size() == count) break;
    top.push_back({candidate.id, static_cast<float>(candidate.logit - log_total)});
  }
  return top;
}

void ApplyPenalties(absl::Span<float> logits, const TokenSampling& sampling,
                    const TokenHistory& history) {
  const bool repetition = sampling.repetition_penalty != 1;
  const bool occurrence = sampling.presence_penalty != 0 || sampling.frequency_penalty != 0;
  if (!repetition && !occurrence) return;
  absl::flat_hash_map<uint32_t, int> times;  // generated; 0 for ids of the prompt alone
  for (const uint32_t id : history.prompt) times.try_emplace(id, 0);
  for (const uint32_t id : history.generated) ++times[id];
  for (const auto& [id, count] : times) {
    if (id >= logits.size()) continue;
    float& logit = logits[id];
    if (repetition) {
      logit = logit < 0 ? logit * sampling.repetition_penalty : logit / sampling.repetition_penalty;
    }
    if (count > 0) {
      logit -= sampling.presence_penalty + sampling.frequency_penalty * static_cast<float>(count);
    }
  }
}

void ApplyMask(absl::Span<float> logits, absl::Span<const uint32_t> mask) {
  constexpr size_t kBits = 32;
  for (size_t first = 0; first < logits.size(); first += kBits) {
    const auto word = logits.subspan(first, kBits);
    const uint32_t bits = first / kBits < mask.size() ? mask[first / kBits] : 0;
    for (size_t i = 0; i < word.size(); ++i) {
      word[i] = (bits >> i & 1) != 0 ? word[i] : -kInfinity;
    }
  }
}

// Steps 1 to 4.
void ApplyProcessors(absl::Span<float> logits, const TokenSampling& sampling,
                     const TokenHistory& history, const TokenRules& rules) {
  for (const auto& [id, bias] : sampling.logit_bias) {
    if (id < logits.size()) logits[id] += bias;
  }
  ApplyPenalties(logits, sampling, history);
  if (!rules.mask.empty()) ApplyMask(logits, rules.mask);
  if (history.generated.size() >= sampling.min_tokens) return;
  for (const uint32_t id : rules.ending_ids) {
    if (id < logits.size()) logits[id] = -kInfinity;
  }
}

// The tokens by falling logit, sorted only where a decision falls: their buckets, by logit, know
// how many tokens and how much probability they hold, so whole buckets are passed in one step. A
// full sort of 50,000 ids would cost 4 ms.
class FallingOrder {
 public:
  // The first `count` tokens.
  struct Head {
    size_t count = 0;
    double mass = 0;                   // Σ exp(logit)
    Candidate last = {-kInfinity, 0};  // if it was reached by sorting
  };

  // The largest logit is 0, impossible ones are -infinity; they must outlive this.
  explicit FallingOrder(absl::Span<const float> logits) : logits_(logits), buckets_(kBuckets) {
    float lowest = 0;
    for (const float logit : logits) {
      if (logit >= kFaintest) lowest = std::min(lowest, logit);
    }
    per_logit_ = lowest < -1e-30f ? static_cast<float>(kBuckets) / lowest : 0;
    for (const float logit : logits) {
      if (logit < -FLT_MAX) continue;
      Bucket& bucket = buckets_[BucketOf(logit)];
      ++bucket.count;
      bucket.mass += std::exp(logit);
      bucket.lowest = std::min(bucket.lowest, logit);
    }
    for (const Bucket& bucket : buckets_) {
      all_.count += bucket.count;
      all_.mass += bucket.mass;
    }
  }

  const Head& all() const { return all_; }

  // Tokens join in their order while joins(head before it, its logit); the first one always does.
  // A token that may join a head may join each shorter one, too: a bucket whose lowest token may
  // still join after all of the bucket joins unsorted.
  template <class Joins>
  Head Longest(Joins joins) const {
    Head head;
    for (size_t i = 0; i < kBuckets; ++i) {
      const Bucket& bucket = buckets_[i];
      if (bucket.count == 0) continue;
      const Head whole = {head.count + bucket.count, head.mass + bucket.mass, head.last};
      if (joins(whole, bucket.lowest)) {
        head = whole;
        continue;
      }
      for (const Candidate& candidate : Sorted(i)) {
        if (head.count > 0 && !joins(head, candidate.logit)) return head;
        head = {head.count + 1, head.mass + std::exp(candidate.logit), candidate};
      }
    }
    return head;
  }

 private:
  static constexpr size_t kBuckets = 2048;
  // exp() of less is 0: one such token must not make the buckets wide for all others.
  static constexpr float kFaintest = -104;

  struct Bucket {
    double mass = 0;
    uint32_t count = 0;
    float lowest = 0;
  };

  size_t BucketOf(float logit) const {
    return static_cast<size_t>(std::min(static_cast<float>(kBuckets - 1), logit * per_logit_));
  }

  std::vector<Candidate> Sorted(size_t bucket) const {
    std::vector<Candidate> candidates;
    candidates.reserve(buckets_[bucket].count);
    for (size_t id = 0; id < logits_.size(); ++id) {
      if (logits_[id] < -FLT_MAX || BucketOf(logits_[id]) != bucket) continue;
      candidates.push_back({logits_[id], static_cast<uint32_t>(id)});
    }
    std::sort(candidates.begin(), candidates.end(), Likelier);
    return candidates;
  }

  absl::Span<const float> logits_;
  float per_logit_;
  std::vector<Bucket> buckets_;
  Head all_;
};

// Steps 5 to 7.
uint32_t DrawToken(absl::Span<float> logits, const TokenSampling& sampling, double uniform) {
  using Head = FallingOrder::Head;
  const float max = *std::max_element(logits.begin(), logits.end());
  for (float& logit : logits) logit = (logit - max) / sampling.temperature;
  const FallingOrder order(logits);
  Head kept = order.all();
  if (sampling.top_k > 0 && sampling.top_k < kept.count) {
    kept = order.Longest([&](const Head& head, float logit) {
      return head.count < sampling.top_k || logit == head.last.logit;
    });
  }
  if (sampling.top_p < 1 || sampling.min_p > 0) {
    const Head before = kept;
    kept = order.Longest([&](const Head& head, float logit) {
      return head.count < before.count && head.mass < sampling.top_p * before.mass &&
             std::exp(logit) >= sampling.min_p;
    });
  }
  const Head drawn = order.Longest([&](const Head& head, float) {
    return head.count < kept.count && head.mass <= uniform * kept.mass;
  });
  return drawn.last.id;
}

}  // namespace

absl::StatusOr<Token> SampleToken(absl::Span<float> logits, const TokenSampling& sampling,
                                  const TokenHistory& history, const TokenRules& rules) {
  if (!AllFinite(logits)) {
    return absl::InternalError(absl::StrCat(kNonFinite, "the model predicts NaN or Inf"));
  }
  Token token;
  std::vector<float> raw;
  double log_total = 0;
  if (sampling.logprobs.has_value()) {
    raw.assign(logits.begin(), logits.end());
    log_total = LogSumExp(raw);
    token.top = Likeliest(raw, *sampling.logprobs, log_total);
  }
  ApplyProcessors(logits, sampling, history, rules);
  const auto best = std::max_element(logits.begin(), logits.end());
  if (best == logits.end() || !std::isfinite(*best)) {
    return absl::InvalidArgumentError("logit_bias, min_tokens and guide leave no token possible");
  }
  token.id =
      sampling.temperature < kGreedyTemperature
          ? static_cast<uint32_t>(best - logits.begin())
          : DrawToken(logits, sampling, UniformDraw(sampling.seed, history.generated.size()));
  if (sampling.logprobs.has_value()) {
    token.logprob = static_cast<float>(raw[token.id] - log_total);
  }
  return token;
}

}  // namespace hanmo
