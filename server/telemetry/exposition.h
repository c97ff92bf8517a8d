// What /metrics shows of our registry, with what is only summed up or renamed when somebody asks.
#ifndef HANMO_SERVER_TELEMETRY_EXPOSITION_H_
#define HANMO_SERVER_TELEMETRY_EXPOSITION_H_

#include <memory>
#include <utility>
#include <vector>

#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"
#include "prometheus/registry.h"

namespace hanmo {

// Adds the three gauges without labels that the Kubernetes inference gateway picks pods by, and on
// demand our families of texts under the names of vLLM.
class Exposition : public prometheus::Collectable {
 public:
  Exposition(std::shared_ptr<prometheus::Registry> registry, bool vllm_names)
      : registry_(std::move(registry)), vllm_names_(vllm_names) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  const bool vllm_names_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_EXPOSITION_H_
