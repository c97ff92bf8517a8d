// The figures of a run, from what became of its calls.
#ifndef HANMO_CLIENT_LOAD_LOAD_SUMMARY_H_
#define HANMO_CLIENT_LOAD_LOAD_SUMMARY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/load/outcome.h"
#include "grpcpp/support/status.h"
#include "nlohmann/json.hpp"

namespace hanmo {

// Seconds, kept one by one: the quantiles are exact.
class Times {
 public:
  void Add(absl::Duration time) {
    values_.push_back(static_cast<float>(absl::ToDoubleSeconds(time)));
  }
  bool empty() const { return values_.empty(); }
  // Of one time or more.
  double Mean() const;
  // Linear between the two nearest; `q` is 0 to 1.
  double Quantile(double q) const;

 private:
  mutable std::vector<float> values_;  // a quantile orders them
};

struct LoadSummaryOptions {
  // Calls that are due earlier warm the server up and count in nothing.
  absl::Time from = absl::InfinitePast();
  // A good answer is there after this long.
  absl::Duration slo = absl::InfiniteDuration();
};

// Latencies are of calls that ended with OK; refusals would make them look short.
class LoadSummary {
 public:
  explicit LoadSummary(LoadSummaryOptions options) : options_(options) {}

  void Add(const Outcome& outcome);

  size_t sent() const { return sent_; }
  size_t ok() const { return ok_; }
  // Of the first call that failed; OK when none did.
  const grpc::Status& first_failure() const { return first_failure_; }

  std::string Text() const;
  nlohmann::ordered_json Json() const;

 private:
  // From the first call's due instant, or the end of the warm-up, to the last one's end.
  double Seconds() const;
  size_t failed() const { return sent_ - ok_ - cut_; }
  bool has_slo() const { return options_.slo < absl::InfiniteDuration(); }

  const LoadSummaryOptions options_;
  absl::Time first_due_ = absl::InfiniteFuture();
  absl::Time last_end_ = absl::InfinitePast();
  size_t sent_ = 0;
  size_t ok_ = 0;
  size_t cut_ = 0;
  size_t good_ = 0;
  uint64_t tokens_ = 0;
  uint64_t pictures_ = 0;
  uint64_t steps_ = 0;
  std::map<std::string, size_t> failed_;  // by code
  grpc::Status first_failure_;
  Times latency_;
  Times first_token_;
  Times inter_token_;
  Times late_;
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_LOAD_LOAD_SUMMARY_H_
