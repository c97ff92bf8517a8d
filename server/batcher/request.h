// What the front end hands to the batcher: plain values, validated, tokenized, owned.
#ifndef HANMO_SERVER_BATCHER_REQUEST_H_
#define HANMO_SERVER_BATCHER_REQUEST_H_

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"

namespace hanmo {

// Index of a model in the repository; never reused while the server runs.
using ModelId = uint32_t;
// Drawn by the batcher, unique while the server runs.
using RequestId = uint64_t;
// One running generation on a worker; unique while the server runs, also across restarts.
using SampleHandle = uint64_t;
using WorkerId = uint32_t;

// How the next token is drawn; ranges as in hanmo.v1.TextParameters.
struct TokenSampling {
  float temperature = 1;
  uint32_t top_k = 0;
  float top_p = 1;
  float min_p = 0;
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::map<uint32_t, float> logit_bias;
  // Token i of a sample is drawn with a counter-based generator keyed by (seed, i).
  uint64_t seed = 0;
  uint32_t min_tokens = 0;
  std::optional<uint32_t> logprobs;
  std::vector<uint32_t> eos_token_ids;
};

// A picture that a text is about, of the size that the model reads: 8-bit RGB, rows from the top
// without padding. Shared by the samples of a request; null where there is none.
struct PictureInput {
  uint32_t width = 0;  // pixels
  uint32_t height = 0;
  std::shared_ptr<const std::string> rgb;
};

// One text to write; or, with a model that paints by tokens, one picture.
struct TextJob {
  // Never empty. With a source: the source, padded to whole KV pages, and at least one token more.
  std::vector<uint32_t> prompt;
  TokenSampling sampling;
  // End the sample: the model's end-of-text ids (unless ignored) and the request's own.
  std::vector<uint32_t> stop_token_ids;
  uint32_t max_tokens = 0;  // at least 1; prompt + max_tokens fits the context

  // The first so many tokens of the prompt see each other, and nobody reads the padding behind them
  // (UniLM's mask): they are run in one step. 0: every token sees those before it.
  uint32_t source_tokens = 0;
  // The source is this picture; its tokens in `prompt` are placeholders until the worker has read
  // it.
  PictureInput picture;
  // Pixels of the picture that the max_tokens tokens become in the end; 0: they are a text.
  uint32_t paint_width = 0;
  uint32_t paint_height = 0;
  // Of a picture painted so: as PictureJob has it.
  std::vector<uint32_t> score_prompt;

  bool paints() const { return paint_width > 0; }
};

// One picture to paint.
struct PictureJob {
  std::vector<uint32_t> prompt;           // padded to the model's prompt length
  std::vector<uint32_t> negative_prompt;  // same length; empty when guidance <= 1
  uint32_t width = 0;                     // pixels
  uint32_t height = 0;
  std::string sampler;  // empty: the checkpoint's
  uint32_t steps = 0;
  // As few as these will do where the deadline could not be met otherwise; 0: never fewer.
  uint32_t min_steps = 0;
  float guidance = 1;
  uint64_t seed = 0;
  uint32_t preview_every_steps = 0;  // 0: no previews
  // The prompt in the reranker's own token ids, framed and not padded; the finished picture is
  // scored against it. Empty: no score.
  std::vector<uint32_t> score_prompt;
};

using SampleJob = std::variant<TextJob, PictureJob>;

struct Request {
  ModelId model = 0;
  // One entry per text or picture asked for; all of one kind; 1 to 64.
  std::vector<SampleJob> samples;
  // Whose share of the devices it takes; empty is a tenant, too.
  std::string tenant;
  // -100 to 100; higher goes earlier.
  int32_t priority = 0;
  // Both on the clock of SteadyNow() (clock.h); InfiniteFuture() when the client set no deadline.
  absl::Time arrival = absl::InfinitePast();
  absl::Time deadline = absl::InfiniteFuture();
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_REQUEST_H_
