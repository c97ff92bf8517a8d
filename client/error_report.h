// Tells what went wrong: for people on stderr, for scripts as JSON on stdout and as an exit code.
#ifndef HANMO_CLIENT_ERROR_REPORT_H_
#define HANMO_CLIENT_ERROR_REPORT_H_

#include "absl/status/status.h"
#include "client/console.h"
#include "client/exit_code.h"
#include "client/json_mode.h"
#include "grpcpp/support/status.h"
#include "nlohmann/json.hpp"

namespace hanmo {

// `status` with the google.rpc details that its trailer carries: "code", "message",
// "field_violations", "retry_after_seconds".
nlohmann::ordered_json ErrorJson(const grpc::Status& status);

// A failed call. Each violated field is a line of its own. Returns what to exit with.
ExitCode ReportError(const grpc::Status& status, JsonMode json, const Console& console);

// A fault found here. INVALID_ARGUMENT is wrong usage, UNAVAILABLE nobody who answers, DATA_LOSS a
// server that sent nonsense; everything else concerns a file.
ExitCode ReportError(const absl::Status& status, JsonMode json, const Console& console);

}  // namespace hanmo

#endif  // HANMO_CLIENT_ERROR_REPORT_H_
