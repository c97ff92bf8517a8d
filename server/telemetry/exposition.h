// What /metrics shows of our registry, with what is only summed up or renamed when somebody asks.
#ifndef HANMO_SERVER_TELEMETRY_EXPOSITION_H_
#define HANMO_SERVER_TELEMETRY_EXPOSITION_H_

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "prometheus/collectable.h"
#include "prometheus/metric_family.h"
#include "prometheus/registry.h"

namespace hanmo {

// Adds the three gauges without labels that the Kubernetes inference gateway picks pods by, whether
// the server is ready, and on demand our families of texts under the names of vLLM.
class Exposition : public prometheus::Collectable {
 public:
  Exposition(std::shared_ptr<prometheus::Registry> registry, bool vllm_names,
             std::function<bool()> ready)
      : registry_(std::move(registry)), vllm_names_(vllm_names), ready_(std::move(ready)) {}

  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::shared_ptr<prometheus::Registry> registry_;
  const bool vllm_names_;
  const std::function<bool()> ready_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TELEMETRY_EXPOSITION_H_
