// Sends calls at their instants, whatever the server makes of them: an open loop. Or keeps so many
// under way at a time: a closed one.
#ifndef HANMO_CLIENT_LOAD_LOAD_RUN_H_
#define HANMO_CLIENT_LOAD_LOAD_RUN_H_

#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "client/load/arrival.h"
#include "client/load/load_call.h"
#include "client/load/outcome.h"
#include "grpcpp/channel.h"
#include "hanmo/v1/generation.grpc.pb.h"

namespace hanmo {

struct LoadOptions {
  // 0: an open loop. Otherwise a call is sent, and due, as soon as fewer than this many are under
  // way, whatever its `at` says.
  size_t concurrency = 0;
  // Repeated calls end after this long.
  absl::Duration length = absl::ZeroDuration();
  // The others have this long to end after the last was sent.
  absl::Duration drain = absl::Seconds(60);
};

class LoadRun {
 public:
  using Channels = std::vector<std::shared_ptr<grpc::Channel>>;

  explicit LoadRun(LoadOptions options) : options_(options) {}

  // Where calls that stream go, in turns, and the others. gRPC lets no more than the server's
  // max-concurrent-streams (256) calls through on one connection and would keep the others waiting
  // here. DEADLINE_EXCEEDED when a server cannot be reached in ten seconds.
  absl::Status Connect(const Channels& streaming, const Channels& unary);

  // Runs on the calling thread, once; returns when every call has ended. Open loop: what `next`
  // gives is in order of `at`; it ends with nullopt. `done` gets each outcome in order of the ends,
  // on gRPC's threads, one at a time.
  void Play(const std::function<std::optional<Arrival>()>& next, std::function<void(Outcome)> done)
      ABSL_LOCKS_EXCLUDED(mu_);

  // From any thread, at any time: no more calls are sent, those under way are cut.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_);

  // When `at` was zero.
  absl::Time start() const { return start_; }

 private:
  using Stubs = std::vector<std::unique_ptr<hanmo::v1::Generation::Stub>>;

  void Start(size_t index, Arrival arrival, absl::Time due) ABSL_LOCKS_EXCLUDED(mu_);
  void Ended(size_t index, LoadCall* call) ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the repeated calls, or all.
  void Cut(bool all) ABSL_LOCKS_EXCLUDED(mu_);
  // False when stopped.
  bool SleepUntil(absl::Time time) ABSL_LOCKS_EXCLUDED(mu_);
  bool AwaitRoom() ABSL_LOCKS_EXCLUDED(mu_);
  void AwaitAll(absl::Duration patience) ABSL_LOCKS_EXCLUDED(mu_);

  const LoadOptions options_;
  // Set before the first call.
  Stubs streaming_;
  Stubs unary_;
  std::function<void(Outcome)> done_;
  absl::Time start_;

  absl::Mutex done_mu_;  // serializes done_

  absl::Mutex mu_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  bool over_ ABSL_GUARDED_BY(mu_) = false;  // repeats no more
  size_t open_ ABSL_GUARDED_BY(mu_) = 0;    // calls that are not destroyed yet
  size_t sent_ ABSL_GUARDED_BY(mu_) = 0;
  std::unordered_map<LoadCall*, std::shared_ptr<LoadCall>> calls_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_LOAD_LOAD_RUN_H_
