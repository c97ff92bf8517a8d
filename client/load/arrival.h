// What to ask for, and when.
#ifndef HANMO_CLIENT_LOAD_ARRIVAL_H_
#define HANMO_CLIENT_LOAD_ARRIVAL_H_

#include "absl/time/time.h"
#include "hanmo/v1/generation.pb.h"

namespace hanmo {

struct Arrival {
  absl::Duration at = absl::ZeroDuration();            // since the beginning of the run
  absl::Duration deadline = absl::InfiniteDuration();  // since `at`
  // Ask again as soon as the answer is there, until the run ends: a stream that never dries up.
  bool repeat = false;
  hanmo::v1::GenerateRequest request;

  // Texts are streamed, pictures asked for in one call.
  bool streams() const { return request.has_text(); }
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_LOAD_ARRIVAL_H_
