#include "server/telemetry/metrics_server.h"

#include <exception>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/telemetry/exposition.h"
#include "server/telemetry/process_metrics.h"

namespace hanmo {

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(const Options& options,
                                                                    const Metrics& metrics) {
  const std::string& address = options.address;
  std::unique_ptr<MetricsServer> server(new MetricsServer);
  // CivetWeb tells a port that cannot be bound by an exception only.
  try {
    server->exposer_ = std::make_unique<prometheus::Exposer>(address, /*num_threads=*/1);
  } catch (const std::exception&) {
    return absl::UnavailableError(
        absl::StrCat("--metrics-listen: cannot listen on \"", address, "\""));
  }
  server->sources_ = {
      std::make_shared<Exposition>(metrics.registry(), options.vllm_names, options.ready),
      std::make_shared<CertificateMetrics>(options.certificates),
      std::make_shared<ProcessMetrics>()};
  for (const auto& source : server->sources_) server->exposer_->RegisterCollectable(source);
  const std::vector<int> ports = server->exposer_->GetListeningPorts();
  const size_t colon = address.rfind(':');
  const std::string host = colon == std::string::npos ? "0.0.0.0" : address.substr(0, colon);
  server->address_ = absl::StrCat(host, ":", ports.empty() ? 0 : ports[0]);
  return server;
}

}  // namespace hanmo
