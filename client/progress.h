// How far a request is, on stderr: a bar on a terminal, a few plain lines elsewhere.
#ifndef HANMO_CLIENT_PROGRESS_H_
#define HANMO_CLIENT_PROGRESS_H_

#include <cstdint>
#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace hanmo {

struct ProgressOptions {
  bool quiet = false;
  bool terminal = false;
  int columns = 80;
  // Of the request: its samples.
  uint32_t samples = 1;
  std::function<absl::Time()> now = absl::Now;
};

class Progress {
 public:
  // `err` outlives the object.
  Progress(std::ostream* err, ProgressOptions options);
  ~Progress() { Clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `position` requests are ahead.
  void Queued(uint32_t position, absl::Duration wait = absl::ZeroDuration());
  // Step `step` of `steps` of sample `index` is done. Samples that were not announced are ignored.
  void Step(uint32_t index, uint32_t step, uint32_t steps);
  // Takes the bar off the terminal, before other output.
  void Clear();

 private:
  struct Done {
    uint32_t step = 0;
    uint32_t steps = 0;
  };

  std::string Bar(uint64_t step, uint64_t steps) const;
  void Show(const std::string& line);

  std::ostream* const err_;
  const ProgressOptions options_;
  std::vector<Done> done_;  // by sample
  absl::Time first_step_ = absl::InfinitePast();
  uint64_t first_steps_ = 0;  // done at first_step_
  absl::Time drawn_ = absl::InfinitePast();
  uint64_t quarter_ = 0;
  bool shown_ = false;
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_PROGRESS_H_
