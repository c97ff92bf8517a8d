// The part of a request that asks for texts.
#ifndef HANMO_SERVER_RPC_TEXT_FIELDS_H_
#define HANMO_SERVER_RPC_TEXT_FIELDS_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "hanmo/v1/generation.pb.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/violations.h"

namespace hanmo {

// Checks proto.text and fills plan->request.samples; `drawn_seed` is used when it names none.
void PlanText(const hanmo::v1::GenerateRequest& proto, uint64_t drawn_seed, GenerationPlan* plan,
              Violations* violations);

// Settles max_tokens of every sample, whose range depends on the length of the prompt, which is
// `field`. INVALID_ARGUMENT when it leaves no room, or less than was asked for.
absl::Status SettleLength(absl::string_view field, size_t prompt_tokens, GenerationPlan* plan);

// Sets the prompt of every sample and settles its length.
absl::Status SetTextPrompt(std::vector<uint32_t> prompt, GenerationPlan* plan);

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_TEXT_FIELDS_H_
