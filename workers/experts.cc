#include "workers/experts.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/torch_status.h"
#include "workers/working_memory.h"

namespace hanmo {
namespace {

// The first key of the one config that the other lacks or has another value of. Keys such as
// _name_or_path say where a folder comes from.
std::optional<std::string> Difference(const nlohmann::json& a, const nlohmann::json& b) {
  for (const auto& [key, value] : a.items()) {
    if (absl::StartsWith(key, "_")) continue;
    if (const auto other = b.find(key); other == b.end() || *other != value) return key;
  }
  return std::nullopt;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Experts>> Experts::Load(const PipelineOptions& options,
                                                       std::vector<ExpertRange> ranges) {
  std::unique_ptr<Experts> experts(new Experts(options, std::move(ranges)));
  HANMO_RETURN_IF_ERROR(experts->CheckFolders());
  const size_t count = experts->ranges_.size();
  size_t slots = count;
  if (options.expert_bytes > 0) {
    const uint64_t fit = options.expert_bytes / std::max<uint64_t>(1, experts->bytes_each_);
    slots = std::clamp<uint64_t>(fit, 1, count);
  }
  Experts* const self = experts.get();
  experts->residency_ = std::make_unique<Residency>(
      Residency::Options{.parts = count,
                         .slots = slots,
                         .load = [self](size_t expert) { return self->LoadOne(expert); },
                         .evict = [self](size_t expert) { self->unets_[expert].reset(); },
                         // The cores belong to the step that runs meanwhile.
                         .start_thread = [] { SetComputeThreads(1); }});
  HANMO_RETURN_IF_ERROR(experts->residency_->Fill());
  experts->traits_ = experts->unets_[0]->traits();
  return experts;
}

absl::StatusOr<Checkpoint> Experts::Open(size_t expert) const {
  return Checkpoint::Open(absl::StrCat(options_.folder, "/", ranges_[expert].subfolder),
                          {options_.dtype, options_.device->device(), ""});
}

absl::Status Experts::CheckFolders() {
  std::vector<Checkpoint> checkpoints;
  const std::string* configured = nullptr;
  for (size_t i = 0; i < ranges_.size(); ++i) {
    HANMO_ASSIGN_OR_RETURN(Checkpoint checkpoint, Open(i));
    if (!checkpoint.config().empty() && configured == nullptr) {
      config_ = checkpoint.config();
      configured = &ranges_[i].subfolder;
    }
    checkpoints.push_back(std::move(checkpoint));
  }
  if (configured == nullptr) {
    return absl::NotFoundError(
        absl::StrCat(options_.folder, "/", ranges_[0].subfolder, ": config.json is missing"));
  }
  bytes_each_ = checkpoints[0].bytes();
  for (size_t i = 0; i < ranges_.size(); ++i) {
    HANMO_RETURN_IF_ERROR(checkpoints[i].CheckShapes(checkpoints[0]));
    const nlohmann::json& config = checkpoints[i].config();
    if (config.empty()) continue;
    std::optional<std::string> key = Difference(config, config_);
    if (!key.has_value()) key = Difference(config_, config);
    if (!key.has_value()) continue;
    return absl::InvalidArgumentError(absl::StrCat(ranges_[i].subfolder, "/config.json: ", *key,
                                                   " differs from ", *configured, "'s"));
  }
  return absl::OkStatus();
}

absl::Status Experts::LoadOne(size_t expert) {
  // It comes and goes while steps run, whose memory is counted.
  const UncountedMemory uncounted;
  return CatchTorch([&]() -> absl::Status {
    c10::InferenceMode inference;
    HANMO_ASSIGN_OR_RETURN(Checkpoint checkpoint, Open(expert));
    checkpoint.SetConfig(config_);
    HANMO_ASSIGN_OR_RETURN(unets_[expert], Unet::Load(checkpoint, {options_.deterministic}));
    return absl::OkStatus();
  });
}

absl::StatusOr<const Unet*> Experts::Use(size_t expert, absl::Duration* waited) {
  HANMO_RETURN_IF_ERROR(residency_->Use(expert, waited));
  return unets_[expert].get();
}

}  // namespace hanmo
