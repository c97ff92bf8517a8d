#include "workers/models/token_sampler.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
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
// Tokens e^8 ≈ 3000 times less likely than the likeliest are sorted only when the draw or a filter
// reaches them: a full sort of 50,000 ids costs 4 ms, this head of them 0.1.
constexpr float kHeadDepth = 8;

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

// Steps 6 and 7 over the sorted head of the tokens. nullopt when the head is too short to decide.
std::optional<uint32_t> Draw(absl::Span<const Candidate> head, bool complete, double total,
                             const TokenSampling& sampling, double uniform) {
  const bool cuts = sampling.top_p < 1 || sampling.min_p > 0;
  const float best = head[0].logit;
  double kept = total;
  size_t count = head.size();
  if (cuts) {
    bool decided = complete;
    double mass = 0;
    for (size_t i = 0; i < head.size(); ++i) {
      const double weight = std::exp(head[i].logit - best);
      if (i > 0 && (mass >= sampling.top_p * total || weight < sampling.min_p)) {
        count = i;
        decided = true;
        break;
      }
      mass += weight;
    }
    if (!decided) return std::nullopt;
    kept = mass;
  }
  double mass = 0;
  for (size_t i = 0; i < count; ++i) {
    mass += std::exp(head[i].logit - best);
    if (mass > uniform * kept) return head[i].id;
  }
  // Rounding may leave the last sum a hair below the total.
  if (cuts || complete) return head[count - 1].id;
  return std::nullopt;
}

uint32_t DrawToken(absl::Span<float> logits, const TokenSampling& sampling, double uniform) {
  const float max = *std::max_element(logits.begin(), logits.end());
  for (float& logit : logits) logit = (logit - max) / sampling.temperature;
  if (sampling.top_k > 0 && sampling.top_k < logits.size()) {
    // Impossible ids, at -infinity, never count among the k.
    const float threshold = std::max(KthLargest(logits, sampling.top_k), -FLT_MAX);
    const std::vector<Candidate> kept = SortedFrom(logits, threshold);
    double total = 0;
    for (const Candidate& candidate : kept) total += std::exp(candidate.logit);
    return *Draw(kept, /*complete=*/true, total, sampling, uniform);
  }
  double total = 0;
  for (const float logit : logits) total += std::exp(logit);
  const auto head = Draw(SortedFrom(logits, -kHeadDepth), false, total, sampling, uniform);
  if (head.has_value()) return *head;
  return *Draw(SortedFrom(logits, -FLT_MAX), true, total, sampling, uniform);
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
