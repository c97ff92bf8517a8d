#include "server/worker_link/fleet.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/worker_link/dial.h"
#include "server/worker_link/member.h"

namespace hanmo {
namespace {

constexpr absl::Duration kTermGrace = absl::Seconds(1);

}  // namespace

Fleet::Fleet(FleetOptions options, std::vector<FleetModel> models, WorkerEvents* events,
             FleetObserver* observer)
    : options_(std::move(options)),
      models_(std::make_unique<ModelList>(std::move(models))),
      events_(events),
      observer_(observer) {}

Fleet::~Fleet() {
  for (auto& member : members_) member->Stop();
  const absl::Time kill_at = absl::Now() + kTermGrace;
  for (auto& member : members_) member->Join(kill_at);
}

absl::Status Fleet::Start() {
  if (absl::Status status = CheckOptions(); !status.ok()) return status;
  failures_ =
      std::make_unique<FailureBoard>(options_.devices.size() + options_.attach.size(), events_);
  const Member::Context context = {&options_, models_.get(), events_, observer_, failures_.get()};
  WorkerId id = 0;
  for (const std::string& device : options_.devices) {
    members_.push_back(std::make_unique<Member>(Member::Place{id++, device, ""}, context));
  }
  for (const std::string& address : options_.attach) {
    members_.push_back(std::make_unique<Member>(Member::Place{id++, "", address}, context));
  }
  for (auto& member : members_) member->Start();
  return absl::OkStatus();
}

void Fleet::Load(const FleetModel& model) {
  models_->Add(model);
  for (auto& member : members_) member->Load(model);
}

void Fleet::Forget(ModelId model) {
  models_->Remove(model);
  failures_->Forget(model);
  for (auto& member : members_) member->Forget(model);
}

std::vector<WorkerId> Fleet::Unload(ModelId model) {
  std::vector<WorkerId> asked;
  for (size_t i = 0; i < members_.size(); ++i) {
    if (members_[i]->Unload(model)) asked.push_back(static_cast<WorkerId>(i));
  }
  return asked;
}

absl::Status Fleet::CheckOptions() const {
  if (options_.devices.empty() && options_.attach.empty()) {
    return absl::InvalidArgumentError("workers: at least one device or address expected");
  }
  if (!options_.devices.empty() && access(options_.worker_program.c_str(), X_OK) != 0) {
    return absl::NotFoundError(
        absl::StrCat("worker program ", options_.worker_program, " is not an executable file"));
  }
  for (const std::string& address : options_.attach) {
    if (absl::Status status = CheckWorkerAddress(address); !status.ok()) return status;
  }
  if (options_.tls_certificate_file.empty() != options_.tls_key_file.empty()) {
    return absl::InvalidArgumentError("worker TLS: certificate and key are given both or neither");
  }
  return absl::OkStatus();
}

}  // namespace hanmo
