// The server's time: it never jumps when somebody sets the wall clock.
#ifndef HANMO_SERVER_BATCHER_CLOCK_H_
#define HANMO_SERVER_BATCHER_CLOCK_H_

#include <chrono>

#include "absl/time/time.h"

namespace hanmo {

// Comparable within this process only; its epoch means nothing.
inline absl::Time SteadyNow() {
  return absl::UnixEpoch() + absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace hanmo

#endif  // HANMO_SERVER_BATCHER_CLOCK_H_
