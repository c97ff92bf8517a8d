// What became of one call.
#ifndef HANMO_CLIENT_LOAD_OUTCOME_H_
#define HANMO_CLIENT_LOAD_OUTCOME_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "grpcpp/support/status.h"

namespace hanmo {

// Tokens that came to the client together.
struct Delta {
  absl::Duration at;  // since the call was due
  int tokens = 0;
  uint32_t index = 0;  // of the text
};

struct Outcome {
  size_t arrival = 0;         // index in the order of sending
  absl::Time due;             // when it was to be sent; latencies count from here
  absl::Duration late;        // sent this much after it was due
  absl::Duration latency;     // until its end, whatever that was
  grpc::Status status;        // DATA_LOSS where an answer with OK was not whole
  bool cut = false;           // ended by us because the run was over: it says nothing
  uint64_t hash = 0;          // of the pictures' bytes or of the token ids
  absl::Duration queue;       // as the server says: before the first step,
  absl::Duration device;      // its share of the device's time,
  uint32_t pictures = 0;      // and what it made
  uint32_t steps = 0;         // denoising
  std::vector<Delta> deltas;  // of a text, in order
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_LOAD_OUTCOME_H_
