#include "client/progress.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace hanmo {
namespace {

// Faster than an eye follows, slower than a terminal chokes on.
constexpr absl::Duration kRedraw = absl::Milliseconds(50);
constexpr uint64_t kBarWidth = 30;

}  // namespace

Progress::Progress(std::ostream* err, ProgressOptions options)
    : err_(err), options_(std::move(options)), done_(options_.samples) {}

void Progress::Queued(uint32_t position, absl::Duration wait) {
  // Once steps are done their number says more; with nobody ahead there is nothing to say.
  if (first_step_ != absl::InfinitePast()) return;
  if (position == 0) return Clear();
  const int64_t seconds = absl::ToInt64Seconds(absl::Ceil(wait, absl::Seconds(1)));
  Show(absl::StrCat("queued, ", position, position == 1 ? " request" : " requests", " ahead",
                    seconds > 0 ? absl::StrCat(", about ", seconds, " s") : ""));
}

void Progress::Step(uint32_t index, uint32_t step, uint32_t steps) {
  if (index >= done_.size() || steps == 0) return;
  done_[index] = {std::min(step, steps), steps};
  uint64_t all_done = 0;
  for (const Done& sample : done_) all_done += sample.step;
  // Samples of a request have the same number of steps.
  const uint64_t all = uint64_t{steps} * done_.size();
  const absl::Time now = options_.now();
  if (first_step_ == absl::InfinitePast()) {
    first_step_ = now;
    first_steps_ = all_done;
  }
  if (options_.terminal) {
    if (now - drawn_ < kRedraw && all_done < all) return;
    drawn_ = now;
    Show(Bar(all_done, all));
  } else if (const uint64_t quarter = 4 * all_done / all; quarter > quarter_) {
    quarter_ = quarter;
    Show(absl::StrCat("step ", all_done, " of ", all));
  }
}

std::string Progress::Bar(uint64_t step, uint64_t steps) const {
  std::string line;
  const uint64_t filled = kBarWidth * step / steps;
  if (options_.columns >= 72) {
    line = absl::StrCat("[", std::string(filled, '='), step < steps ? ">" : "",
                        std::string(kBarWidth - filled - (step < steps ? 1 : 0), ' '), "] ");
  }
  if (done_.size() > 1) absl::StrAppend(&line, done_.size(), " pictures, ");
  absl::StrAppend(&line, "step ", step, " of ", steps);
  if (step > first_steps_ && step < steps) {
    const double seconds = absl::ToDoubleSeconds(drawn_ - first_step_);
    const double left =
        seconds / static_cast<double>(step - first_steps_) * static_cast<double>(steps - step);
    absl::StrAppendFormat(&line, ", %.*f s left", left < 10 ? 1 : 0, left);
  }
  return line;
}

void Progress::Show(const std::string& line) {
  if (options_.quiet) return;
  if (options_.terminal) {
    // All it shows is ASCII: a byte is a column.
    const size_t width = static_cast<size_t>(std::max(options_.columns, 1)) - 1;
    *err_ << '\r' << line.substr(0, width) << "\x1b[K" << std::flush;
    shown_ = true;
  } else {
    *err_ << line << '\n' << std::flush;
  }
}

void Progress::Clear() {
  if (!shown_) return;
  *err_ << "\r\x1b[K" << std::flush;
  shown_ = false;
}

}  // namespace hanmo
