// absl::Status to grpc::Status: the one cast between the server's errors and the wire's.
#ifndef HANMO_SERVER_RPC_GRPC_STATUS_H_
#define HANMO_SERVER_RPC_GRPC_STATUS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/server_context.h"
#include "grpcpp/support/status.h"

namespace hanmo {

// How long a client should wait before it tries RESOURCE_EXHAUSTED and UNAVAILABLE again.
inline constexpr absl::Duration kRetryDelay = absl::Seconds(1);

// Payloads become details in grpc-status-details-bin. For errors that a retry can mend, RetryInfo
// is among them and grpc-retry-pushback-ms among the trailers, which `context` (may be null) gets.
grpc::Status ToGrpcStatus(const absl::Status& status, grpc::ServerContextBase* context);

// Tells the client `value` as metadata, unless it is empty: in the headers of an answer, in the
// trailers of an error that comes before any. Retries of gRPC's own take headers for the beginning
// of an answer. To be called before anything is sent.
void TellClient(const char* key, const std::string& value, const absl::Status& status,
                grpc::ServerContextBase* context);

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_GRPC_STATUS_H_
