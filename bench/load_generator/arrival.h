// One line of a trace: what to ask for, and when. The sender reads them; bench/serve writes them.
#ifndef HANMO_BENCH_LOAD_GENERATOR_ARRIVAL_H_
#define HANMO_BENCH_LOAD_GENERATOR_ARRIVAL_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/load/arrival.h"
#include "hanmo/v1/generation.pb.h"

namespace hanmo {

// Reads one line of JSON. Keys: at_s, deadline_s, repeat, kind ("picture", "text" or "caption"),
// model, seed; of pictures prompt, steps, width, height, guidance, sampler; of texts prompt_tokens,
// prefix_tokens, max_tokens, temperature; of captions file, the path of a picture. Others are left
// alone. INVALID_ARGUMENT names the key.
absl::StatusOr<Arrival> ParseArrival(absl::string_view line);

// Prompt of a text: the first `prefix` ids are the same for every seed, the others are the seed's
// own from the first on. Each is 1 to 4000, so that any vocabulary has it.
hanmo::v1::TokenIds PromptIds(uint64_t seed, uint32_t prefix, uint32_t count);

}  // namespace hanmo

#endif  // HANMO_BENCH_LOAD_GENERATOR_ARRIVAL_H_
