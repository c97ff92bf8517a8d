// Where the batcher delivers what a request produces.
#ifndef HANMO_SERVER_BATCHER_SINK_H_
#define HANMO_SERVER_BATCHER_SINK_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace hanmo {

struct TokenCandidate {
  uint32_t id = 0;
  float logprob = 0;
};

struct Token {
  uint32_t id = 0;
  float logprob = 0;                // only when asked for
  std::vector<TokenCandidate> top;  // only when asked for
};

// 8-bit RGB, rows from the top without padding.
struct Pixels {
  uint32_t width = 0;
  uint32_t height = 0;
  std::string rgb;  // width * height * 3 bytes
};

enum class SampleEnd {
  kEos,     // an end-of-text id of the model
  kStop,    // a stop id of the request, or the sink stopped it
  kLength,  // max_tokens
  kPainted,
};

// Payload of a refusal: after so many milliseconds, in decimal digits, another try may do.
inline constexpr char kRetryAfterMs[] = "hanmo.retry_after_ms";

// What a request used up to its end, also when it was cut short.
struct Usage {
  uint32_t prompt_tokens = 0;         // of one sample: all share the prompt
  uint32_t cached_prompt_tokens = 0;  // of these, found in shared pages
  uint32_t completion_tokens = 0;
  uint32_t steps = 0;         // of pictures: model calls done, redone ones not counted twice
  uint32_t steps_redone = 0;  // lost with a worker or a parked sample's place and done again
  uint32_t pictures = 0;
  absl::Duration device_time;  // this request's share of the steps it rode in
  uint64_t peak_bytes = 0;     // of device memory, of one of its steps; as hanmo.v1.Usage
  absl::Duration queue_time;   // from arrival to its first step
  uint32_t deaths = 0;         // times it was in a step when a worker died
  uint32_t granted_steps = 0;  // fewer than asked for, with the client's consent; 0: all of them
};

// One per request, made by the front end. All calls come from the batcher's thread, one at a time
// and in order; none may block or call back into the batcher.
class Sink {
 public:
  virtual ~Sink() = default;

  // Requests of the model ahead of this one, and about how long until its first step, zero where
  // nothing is known yet. Called at admission and, near the front of the queue, when the position
  // changes.
  virtual void OnQueued(uint32_t position, absl::Duration wait) = 0;
  // Denoising step, or picture token, `step` of `steps` of sample `index` is done.
  virtual void OnStep(uint32_t index, uint32_t step, uint32_t steps) = 0;
  // New tokens of sample `index`, the ending id included. Returns false to end the sample here (a
  // stop string was met); tokens already under way are then dropped.
  virtual bool OnTokens(uint32_t index, absl::Span<const Token> tokens) = 0;
  virtual void OnPreview(uint32_t index, uint32_t step, Pixels pixels) = 0;
  // The finished picture of sample `index`, with its score where the job asked for one.
  virtual void OnPicture(uint32_t index, Pixels pixels, std::optional<float> score) = 0;
  // Sample `index` has ended well; `stop_id` is the token id for kEos and kStop by id.
  virtual void OnSampleEnd(uint32_t index, SampleEnd end, uint32_t stop_id) = 0;
  // Exactly once and last: OK when every sample ended well.
  virtual void OnDone(const absl::Status& status, const Usage& usage) = 0;

  // True while the client reads too slowly: the request's samples are parked (no new steps) until
  // the sink has room and Batcher::Wake is called. Read from the batcher's thread.
  virtual bool full() const = 0;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_SINK_H_
