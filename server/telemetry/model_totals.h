// Sums over all requests and steps of a model since the server began, for those who ask the server
// itself and not Prometheus.
#ifndef HANMO_SERVER_TELEMETRY_MODEL_TOTALS_H_
#define HANMO_SERVER_TELEMETRY_MODEL_TOTALS_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>

#include "absl/time/time.h"

namespace hanmo {

// Thread-safe. A count and its time are read one after the other, so they may differ by the events
// of a moment.
class ModelTotals {
 public:
  // Steps with more rows count as of this many.
  static constexpr uint32_t kMaxRows = 256;

  struct Sum {
    uint64_t count = 0;
    uint64_t nanoseconds = 0;
  };

  void AddRequest(bool ok, absl::Duration time, absl::Time now) {
    (ok ? success_ : fail_).Add(time);
    last_request_ms_.store(static_cast<uint64_t>(absl::ToUnixMillis(now)),
                           std::memory_order_relaxed);
  }
  void AddQueue(absl::Duration time) { queue_.Add(time); }
  // Tokenizing.
  void AddInput(absl::Duration time) { input_.Add(time); }
  // Encoding pictures and sending.
  void AddOutput(absl::Duration time) { output_.Add(time); }
  // One step with so many rows and its time on the device.
  void AddStep(size_t rows, absl::Duration time) {
    steps_[std::clamp<size_t>(rows, 1, kMaxRows) - 1].Add(time);
  }

  Sum success() const { return success_.Read(); }
  Sum fail() const { return fail_.Read(); }
  Sum queue() const { return queue_.Read(); }
  Sum input() const { return input_.Read(); }
  Sum output() const { return output_.Read(); }
  // `rows` is 1 to kMaxRows.
  Sum steps_of(uint32_t rows) const { return steps_[rows - 1].Read(); }
  // Milliseconds since 1970 at which the last request ended; 0 before the first.
  uint64_t last_request_ms() const { return last_request_ms_.load(std::memory_order_relaxed); }

 private:
  class Total {
   public:
    void Add(absl::Duration time) {
      count_.fetch_add(1, std::memory_order_relaxed);
      nanoseconds_.fetch_add(static_cast<uint64_t>(absl::ToInt64Nanoseconds(time)),
                             std::memory_order_relaxed);
    }
    Sum Read() const {
      return {count_.load(std::memory_order_relaxed), nanoseconds_.load(std::memory_order_relaxed)};
    }

   private:
    std::atomic<uint64_t> count_{0};
    std::atomic<uint64_t> nanoseconds_{0};
  };

  Total success_, fail_, queue_, input_, output_;
  std::array<Total, kMaxRows> steps_;
  std::atomic<uint64_t> last_request_ms_{0};
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_MODEL_TOTALS_H_
