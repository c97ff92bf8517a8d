#include "client/exit_code.h"

#include "absl/status/status.h"

namespace hanmo {

ExitCode ExitCodeOf(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK:
      return ExitCode::kDone;
    case grpc::StatusCode::INVALID_ARGUMENT:
    case grpc::StatusCode::OUT_OF_RANGE:
      return ExitCode::kUsage;
    case grpc::StatusCode::NOT_FOUND:
      return ExitCode::kNotFound;
    case grpc::StatusCode::UNAVAILABLE:
      return ExitCode::kUnavailable;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return ExitCode::kTimeout;
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return ExitCode::kBusy;
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::PERMISSION_DENIED:
      return ExitCode::kDenied;
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::UNIMPLEMENTED:
      return ExitCode::kUnable;
    default:
      return ExitCode::kServerFault;
  }
}

std::string CodeName(grpc::StatusCode code) {
  // Both enumerations follow the same standard.
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

std::string ExitCodeHelp() {
  return R"(Exit codes:
  0 done                              5 timeout passed
  1 wrong flag or refused field       6 server has no room, retry later
  2 file not readable or writable     7 not allowed
  3 no such model or service          8 the server or the model cannot do this
  4 server not reachable or serving   9 server failed            130 interrupted)";
}

}  // namespace hanmo
