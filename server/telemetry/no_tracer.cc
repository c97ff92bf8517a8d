// For builds without OpenTelemetry.
#include "server/telemetry/tracer.h"

namespace hanmo {

bool Tracer::Available() { return false; }

absl::StatusOr<std::unique_ptr<Tracer>> Tracer::Create(const Options&) {
  return absl::UnimplementedError("this build has no OpenTelemetry");
}

}  // namespace hanmo
