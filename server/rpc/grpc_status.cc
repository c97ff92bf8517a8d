#include "server/rpc/grpc_status.h"

#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/batcher/sink.h"
#include "server/rpc/violations.h"

namespace hanmo {

grpc::Status ToGrpcStatus(const absl::Status& status, grpc::ServerContextBase* context) {
  if (status.ok()) return grpc::Status::OK;
  google::rpc::Status details;
  details.set_code(static_cast<int>(status.code()));
  details.set_message(std::string(status.message()));
  absl::Duration retry_delay = kRetryDelay;
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    int64_t ms = 0;
    if (url == kRetryAfterMs) {
      if (absl::SimpleAtoi(std::string(payload), &ms)) retry_delay = absl::Milliseconds(ms);
      return;
    }
    google::protobuf::Any* any = details.add_details();
    any->set_type_url(std::string(url));
    any->set_value(std::string(payload));
  });
  const bool retryable = absl::IsResourceExhausted(status) || absl::IsUnavailable(status);
  if (retryable && !status.GetPayload(kRetryInfoUrl).has_value()) {
    google::rpc::RetryInfo retry;
    absl::Duration rest = retry_delay;
    retry.mutable_retry_delay()->set_seconds(absl::IDivDuration(rest, absl::Seconds(1), &rest));
    retry.mutable_retry_delay()->set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
    details.add_details()->PackFrom(retry);
    if (context != nullptr) {
      context->AddTrailingMetadata("grpc-retry-pushback-ms",
                                   absl::StrCat(absl::ToInt64Milliseconds(retry_delay)));
    }
  }
  const std::string bytes = details.details_size() > 0 ? details.SerializeAsString() : "";
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(status.message()),
                      bytes);
}

void TellClient(const char* key, const std::string& value, const absl::Status& status,
                grpc::ServerContextBase* context) {
  if (value.empty()) return;
  if (status.ok()) {
    context->AddInitialMetadata(key, value);
  } else {
    context->AddTrailingMetadata(key, value);
  }
}

}  // namespace hanmo
