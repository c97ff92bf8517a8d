// Loading and unloading models at the word of a client.
#ifndef HANMO_SERVER_OPEN_INFERENCE_REPOSITORY_CONTROL_H_
#define HANMO_SERVER_OPEN_INFERENCE_REPOSITORY_CONTROL_H_

#include <functional>
#include <string>

#include "absl/status/status.h"

namespace hanmo {

// Called on gRPC's threads, which must not be blocked: `done` is called once, on any thread, when
// the model is ready or gone, maybe before these return.
class RepositoryControl {
 public:
  using Done = std::function<void(absl::Status)>;

  virtual ~RepositoryControl() = default;
  // Loads the model, or loads it anew. NOT_FOUND when the repository has no such model. What it
  // returns makes it end soon, with CANCELLED unless it has ended; any thread may call it.
  virtual std::function<void()> Load(const std::string& name, Done done) = 0;
  // NOT_FOUND when no such model is loaded.
  virtual void Unload(const std::string& name, Done done) = 0;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_OPEN_INFERENCE_REPOSITORY_CONTROL_H_
