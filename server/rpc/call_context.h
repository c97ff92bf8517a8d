// What every call needs of the server.
#ifndef HANMO_SERVER_RPC_CALL_CONTEXT_H_
#define HANMO_SERVER_RPC_CALL_CONTEXT_H_

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/batcher/batcher.h"
#include "server/media/task_pool.h"
#include "server/rpc/model_table.h"
#include "server/telemetry/log.h"
#include "server/telemetry/metrics.h"

namespace hanmo {

// Counts the calls under way, so that shutting down can wait for them. Thread-safe.
class CallCounter {
 public:
  void Begin() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    ++calls_;
  }
  void End() ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    --calls_;
  }
  // False when calls are still under way at the end of `patience`.
  bool AwaitNone(absl::Duration patience) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return mu_.AwaitWithTimeout(absl::Condition(this, &CallCounter::none), patience);
  }

 private:
  bool none() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return calls_ == 0; }

  absl::Mutex mu_;
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
};

// Everything outlives the calls.
struct CallContext {
  const ModelTable* models = nullptr;
  Batcher* batcher = nullptr;
  TaskPool* media_pool = nullptr;     // encodes pictures; weights are bytes of pixels
  TaskPool* tokenize_pool = nullptr;  // long texts; weights are bytes of text
  Metrics* metrics = nullptr;
  Log* log = nullptr;
  CallCounter* calls = nullptr;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_CALL_CONTEXT_H_
