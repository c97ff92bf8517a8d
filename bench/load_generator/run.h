// Sends a trace at its instants, whatever the server makes of it: an open loop.
#ifndef HANMO_BENCH_LOAD_GENERATOR_RUN_H_
#define HANMO_BENCH_LOAD_GENERATOR_RUN_H_

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "bench/load_generator/arrival.h"
#include "bench/load_generator/call.h"
#include "bench/load_generator/outcome.h"
#include "hanmo/v1/generation.grpc.pb.h"

namespace hanmo {

struct RunOptions {
  std::string picture_server;  // HOST:PORT
  std::string text_server;
  // To each server. gRPC lets no more than the server's max-concurrent-streams (256) calls through
  // on one and would keep the others waiting here.
  int connections = 8;
  // Repeated calls end after this long.
  absl::Duration length = absl::ZeroDuration();
  // The others have this long to end afterwards.
  absl::Duration drain = absl::Seconds(60);
  // Send each call when the one before has ended, not when it is due.
  bool one_by_one = false;
};

class Run {
 public:
  explicit Run(RunOptions options);

  // DEADLINE_EXCEEDED when a server cannot be reached in ten seconds.
  absl::Status Connect();

  // Runs on the calling thread, once; returns when every call has ended, in the order of their
  // ends. `trace` is in order of `at`.
  std::vector<Outcome> Play(const std::vector<TraceArrival>& trace) ABSL_LOCKS_EXCLUDED(mu_);

  // When `at` was zero.
  absl::Time start() const { return start_; }

 private:
  using Stubs = std::vector<std::unique_ptr<hanmo::v1::Generation::Stub>>;

  absl::Status ConnectTo(const std::string& server, Stubs* stubs) const;
  void Start(size_t index, absl::Time due) ABSL_LOCKS_EXCLUDED(mu_);
  void Ended(size_t index, Call* call) ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the repeated calls, or all.
  void Cut(bool all) ABSL_LOCKS_EXCLUDED(mu_);
  void AwaitAll(absl::Duration patience) ABSL_LOCKS_EXCLUDED(mu_);

  // Set before the first call.
  const RunOptions options_;
  Stubs picture_stubs_;
  Stubs text_stubs_;
  const std::vector<TraceArrival>* trace_ = nullptr;
  absl::Time start_;

  absl::Mutex mu_;
  bool over_ ABSL_GUARDED_BY(mu_) = false;  // repeats no more
  size_t open_ ABSL_GUARDED_BY(mu_) = 0;    // calls that are not destroyed yet
  size_t sent_ ABSL_GUARDED_BY(mu_) = 0;
  std::unordered_map<Call*, std::shared_ptr<Call>> calls_ ABSL_GUARDED_BY(mu_);
  std::vector<Outcome> outcomes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_BENCH_LOAD_GENERATOR_RUN_H_
