// The messages of hanmo.worker.v1 to and from the plain values of the batcher and the executor.
// Both ends of the link use it, so a field is carried in one place.
#ifndef HANMO_SERVER_WORKER_LINK_WIRE_H_
#define HANMO_SERVER_WORKER_LINK_WIRE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "hanmo/worker/v1/worker.pb.h"
#include "server/batcher/request.h"
#include "server/batcher/worker.h"
#include "server/worker_link/loaded_model.h"

namespace hanmo {

namespace wire = ::hanmo::worker::v1;

// Both programs must agree on it; it changes with every change of worker.proto.
inline constexpr uint32_t kWorkerProtocolVersion = 3;
// The largest message either end takes: a 4096 x 4096 picture is 48 MiB.
inline constexpr int kMaxWorkerMessageBytes = 64 << 20;

// Makes a sample known to a worker.
struct BeginCommand {
  SampleHandle sample = 0;
  ModelId model = 0;
  SampleJob job;
  Resume resume;
};

// Goes on with a suspended step.
struct ResumeCommand {
  uint64_t step = 0;
  absl::Duration budget;
};

// To the wire. Budgets are rounded up to whole microseconds, an hour at most. `out` is a fresh
// message.
void ToWire(const absl::Status& status, wire::Status* out);
void ToWire(const WorkerHello& hello, wire::HelloReply* out);
void ToWire(const LoadCommand& load, wire::Load* out);
void ToWire(ModelId model, const absl::StatusOr<LoadedModel>& loaded, wire::Loaded* out);
void ToWire(const BeginCommand& begin, wire::Begin* out);
void ToWire(const Step& step, wire::Step* out);
void ToWire(const ResumeCommand& resume, wire::Resume* out);
void ToWire(StepResult result, wire::StepDone* out);
void ToWire(SavePoint save_point, wire::Saved* out);
void ToWire(const std::vector<SampleHandle>& samples, wire::Save* out);
void ToWire(const std::vector<SampleHandle>& samples, wire::Drop* out);

// From the wire. Values are not checked here, only what has no plain form is refused with
// INVALID_ARGUMENT: a sample without a kind, an unknown kind of step.
absl::Status FromWire(const wire::Status& in);
WorkerHello FromWire(const wire::HelloReply& in);
LoadCommand FromWire(const wire::Load& in);
absl::StatusOr<LoadedModel> FromWire(const wire::Loaded& in);
absl::StatusOr<BeginCommand> FromWire(wire::Begin in);
absl::StatusOr<Step> FromWire(const wire::Step& in);
ResumeCommand FromWire(const wire::Resume& in);
StepResult FromWire(wire::StepDone in);
SavePoint FromWire(wire::Saved in);

}  // namespace hanmo

#endif  // HANMO_SERVER_WORKER_LINK_WIRE_H_
