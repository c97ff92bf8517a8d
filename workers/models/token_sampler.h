// Draws the next token of one sample from its logits. A pure function of its arguments: the other
// rows of a batch, earlier calls and threads have no influence.
#ifndef HANMO_WORKERS_MODELS_TOKEN_SAMPLER_H_
#define HANMO_WORKERS_MODELS_TOKEN_SAMPLER_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/batcher/request.h"
#include "server/batcher/sink.h"

namespace hanmo {

struct TokenHistory {
  absl::Span<const uint32_t> prompt;
  absl::Span<const uint32_t> generated;
};

// What a text's place allows.
struct TokenRules {
  // End-of-text and stop ids.
  absl::Span<const uint32_t> ending_ids;
  // Of a guided text: bit (id % 32) of word (id / 32) for each id that may come next. Empty: any.
  absl::Span<const uint32_t> mask;
};

// In this order, as transformers does it:
//   1. logit bias is added;
//   2. repetition penalty, over the ids of prompt and generated text: a positive logit is divided
//   by
//      it, a negative one multiplied;
//   3. presence penalty is subtracted once, frequency penalty per occurrence, over the generated
//   ids;
//   4. while fewer than min_tokens are generated, the ending ids are impossible; so are ids whose
//      bias is -infinity and those outside the mask;
//   5. temperature below 1e-5: the largest logit, of equal ones the lowest id. Otherwise logits are
//      divided by the temperature and the tokens sorted by falling logit, equal ones by rising id;
//   6. top-k (0: off) keeps the k first and those equal to the k-th; then top-p keeps the shortest
//      head that holds at least that share of what top-k kept; then min-p drops tokens less likely
//      than that share of the likeliest; the first token always stays;
//   7. the token where the running sum of the kept probabilities passes UniformDraw(seed, number of
//      generated tokens) times their total.
// Log probabilities, where asked for, are those of the model: the log-softmax of the logits as they
// came in, before step 1. `top` lists the likeliest ids by them, equal ones by rising id.
//
// `logits` (one float32 per id) is overwritten. INTERNAL when a logit is NaN or infinite;
// INVALID_ARGUMENT when no token is left possible. Ids beyond the vocabulary are ignored.
absl::StatusOr<Token> SampleToken(absl::Span<float> logits, const TokenSampling& sampling,
                                  const TokenHistory& history, const TokenRules& rules);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_TOKEN_SAMPLER_H_
