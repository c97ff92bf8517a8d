// The generation calls under way: shutting down waits for them, and the ids of their requests lead
// to them.
#ifndef HANMO_SERVER_RPC_CALLS_H_
#define HANMO_SERVER_RPC_CALLS_H_

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace hanmo {

class GenerationCall;

// Thread-safe.
class Calls {
 public:
  void Begin() ABSL_LOCKS_EXCLUDED(mu_);
  void End() ABSL_LOCKS_EXCLUDED(mu_);
  int count() ABSL_LOCKS_EXCLUDED(mu_);
  // False when calls are still under way at the end of `patience`.
  bool AwaitNone(absl::Duration patience) ABSL_LOCKS_EXCLUDED(mu_);

  // From now until Unregister the call can be found. Ids are the clients' and need not differ.
  void Register(const std::string& request_id, const std::shared_ptr<GenerationCall>& call)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Unregister(const std::string& request_id, const GenerationCall* call)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::shared_ptr<GenerationCall>> Find(const std::string& request_id)
      ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Entry {
    const GenerationCall* key;
    std::weak_ptr<GenerationCall> call;
  };

  bool none() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return calls_ == 0; }

  absl::Mutex mu_;
  int calls_ ABSL_GUARDED_BY(mu_) = 0;
  std::unordered_multimap<std::string, Entry> by_id_ ABSL_GUARDED_BY(mu_);
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_CALLS_H_
