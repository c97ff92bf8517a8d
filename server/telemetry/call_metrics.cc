#include "server/telemetry/call_metrics.h"

#include <string>
#include <utility>

#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace hanmo {

CallMetrics::Method::Method(MetricFamilies* families, absl::string_view service,
                            absl::string_view method, absl::string_view type)
    : families_(*families),
      labels_({{"grpc_service", std::string(service)},
               {"grpc_method", std::string(method)},
               {"grpc_type", std::string(type)}}),
      started_(&families->grpc_started.Add(labels_)),
      seconds_(&families->grpc_seconds.Add(labels_, RequestBuckets())) {}

void CallMetrics::Method::Ended(absl::StatusCode code, absl::Duration time) {
  const size_t index = CodeIndex(code);
  prometheus::Counter* counter = handled_[index].load(std::memory_order_acquire);
  if (counter == nullptr) {
    prometheus::Labels labels = labels_;
    labels["grpc_code"] = CodeName(index);
    counter = &families_.grpc_handled.Add(labels);  // the same one for all who come here at once
    handled_[index].store(counter, std::memory_order_release);
  }
  counter->Increment();
  seconds_->Observe(absl::ToDoubleSeconds(time));
}

CallMetrics::Method* CallMetrics::Find(absl::string_view path) {
  absl::ReaderMutexLock lock(&mu_);
  const auto found = methods_.find(path);
  return found == methods_.end() ? nullptr : found->second.get();
}

CallMetrics::Method& CallMetrics::Add(absl::string_view path, absl::string_view type) {
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(absl::StripPrefix(path, "/"), absl::MaxSplits('/', 1));
  absl::MutexLock lock(&mu_);
  std::unique_ptr<Method>& made = methods_[path];
  if (made == nullptr) made.reset(new Method(&families_, parts.first, parts.second, type));
  return *made;
}

}  // namespace hanmo
