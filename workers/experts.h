// The denoising networks of a picture model: one, or several that share the timesteps among them as
// ERNIE-ViLG 2.0's mixture of denoising experts does. As many are in memory as may be.
#ifndef HANMO_WORKERS_EXPERTS_H_
#define HANMO_WORKERS_EXPERTS_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/models/expert_ranges.h"
#include "workers/models/unet.h"
#include "workers/pipeline.h"
#include "workers/residency.h"

namespace hanmo {

// Used on the compute thread; see Residency for its loading thread.
class Experts {
 public:
  // Checks the folders of all experts and loads the first ones, as many as fit
  // options.expert_bytes. A folder without config.json has that of the first one with it.
  // INVALID_ARGUMENT and NOT_FOUND name the folder, and the key or tensor in which experts differ.
  static absl::StatusOr<std::unique_ptr<Experts>> Load(const PipelineOptions& options,
                                                       std::vector<ExpertRange> ranges);

  // In the order in which a picture needs them.
  const std::vector<ExpertRange>& ranges() const { return ranges_; }
  // Index of the expert for a timestep.
  size_t At(float timestep) const { return ExpertAt(ranges_, timestep); }

  // The network, valid until the next call. May wait until it is loaded, and then adds the time to
  // `*waited` and tells the yield points; the status says what is wrong with its folder by now.
  absl::StatusOr<const Unet*> Use(size_t expert, absl::Duration* waited);

  // One of the first resident() ones, before the first Use.
  const Unet& loaded(size_t expert) const { return *unets_[expert]; }

  // So many are in memory at a time, from the first one on after Load.
  size_t resident() const { return residency_->slots(); }
  // Of the weights that are in memory at a time, in bytes.
  uint64_t weight_bytes() const { return resident() * bytes_each_; }
  // The same for all of them.
  const UnetTraits& traits() const { return traits_; }
  const nlohmann::json& config() const { return config_; }

 private:
  Experts(const PipelineOptions& options, std::vector<ExpertRange> ranges)
      : options_(options), ranges_(std::move(ranges)), unets_(ranges_.size()) {}

  absl::StatusOr<Checkpoint> Open(size_t expert) const;
  absl::Status CheckFolders();
  absl::Status LoadOne(size_t expert);

  const PipelineOptions options_;
  const std::vector<ExpertRange> ranges_;
  nlohmann::json config_;
  uint64_t bytes_each_ = 0;
  UnetTraits traits_;
  // Each is written while the residency loads or evicts it, and read while it is in use.
  std::vector<std::unique_ptr<const Unet>> unets_;
  std::unique_ptr<Residency> residency_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_EXPERTS_H_
