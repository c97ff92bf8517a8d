// Token ids and log probabilities in Text and TextDelta, whose fields have the same names.
#ifndef HANMO_SERVER_RPC_TOKEN_FIELDS_H_
#define HANMO_SERVER_RPC_TOKEN_FIELDS_H_

#include "absl/types/span.h"
#include "hanmo/v1/generation.pb.h"
#include "server/batcher/sink.h"

namespace hanmo {

template <typename Message>
void AddTokens(absl::Span<const Token> tokens, bool logprobs, Message* message) {
  for (const Token& token : tokens) {
    message->add_token_ids(token.id);
    if (!logprobs) continue;
    hanmo::v1::TokenLogprob* logprob = message->add_logprobs();
    logprob->set_token_id(token.id);
    logprob->set_logprob(token.logprob);
    for (const TokenCandidate& candidate : token.top) {
      hanmo::v1::TokenLogprobCandidate* top = logprob->add_top();
      top->set_token_id(candidate.id);
      top->set_logprob(candidate.logprob);
    }
  }
}

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_TOKEN_FIELDS_H_
