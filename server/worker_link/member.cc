#include "server/worker_link/member.h"

#include <signal.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/worker_link/dial.h"

namespace hanmo {
namespace {

// A checkpoint that ends its worker this often while it is loaded is given up: the worker's other
// models are worth more.
constexpr int kMaxDeathsWhileLoading = 3;

// libgomp reads it before main; the worker's main explains it, and starts itself again without it.
constexpr char kSpinning[] = "GOMP_SPINCOUNT=2000";

}  // namespace

void Fleet::FailureBoard::Note(ModelId model) {
  bool last = false;
  {
    absl::MutexLock lock(&mu_);
    last = ++failed_[model] == workers_;
  }
  if (last) events_->ModelFailed(model);
}

void Fleet::FailureBoard::Forget(ModelId model) {
  absl::MutexLock lock(&mu_);
  failed_.erase(model);
}

void Fleet::ModelList::Add(const FleetModel& model) {
  absl::MutexLock lock(&mu_);
  models_.push_back(model);
}

void Fleet::ModelList::Remove(ModelId model) {
  absl::MutexLock lock(&mu_);
  std::erase_if(models_, [model](const FleetModel& entry) { return entry.id == model; });
}

std::vector<FleetModel> Fleet::ModelList::All() const {
  absl::MutexLock lock(&mu_);
  return models_;
}

Fleet::Member::Member(Place place, Context context) : place_(std::move(place)), context_(context) {}

void Fleet::Member::Start() {
  thread_ = std::thread([this] { Live(); });
}

void Fleet::Member::Stop() {
  absl::MutexLock lock(&mu_);
  stopping_ = true;
  if (child_ != nullptr) {
    child_->Signal(SIGTERM);
  } else if (session_ != nullptr) {
    session_->Close();
  }
}

void Fleet::Member::Join(absl::Time kill_at) {
  if (!thread_.joinable()) return;
  {
    absl::MutexLock lock(&mu_);
    if (!mu_.AwaitWithDeadline(absl::Condition(&finished_), kill_at) && child_ != nullptr) {
      child_->Signal(SIGKILL);
    }
  }
  thread_.join();
}

void Fleet::Member::Live() {
  const FleetOptions& options = *context_.options;
  absl::Duration backoff = options.min_backoff;
  bool reported = false;
  while (true) {
    const absl::Time start = absl::Now();
    const std::string reason = LiveOnce();
    {
      absl::MutexLock lock(&mu_);
      if (stopping_) break;
    }
    // Nobody listening at an address yet is said once, not at every attempt.
    if (was_up_ || place_.address.empty() || !reported) {
      context_.observer->OnWorkerLost(place_.id, reason);
    }
    reported = true;
    if (absl::Now() - start >= options.stable_after) backoff = options.min_backoff;
    absl::MutexLock lock(&mu_);
    if (mu_.AwaitWithTimeout(absl::Condition(&stopping_), backoff)) break;
    backoff = std::min(backoff * 2, options.max_backoff);
  }
  absl::MutexLock lock(&mu_);
  finished_ = true;
}

std::string Fleet::Member::LiveOnce() {
  was_up_ = false;
  std::string reason = place_.address.empty() ? LiveSpawned() : LiveAttached();
  if (was_up_) BlameModelBeingLoaded(reason);
  absl::MutexLock lock(&mu_);
  greeted_ = false;
  loading_.clear();
  asked_.clear();
  leaving_.clear();
  return reason;
}

std::string Fleet::Member::LiveSpawned() {
  absl::StatusOr<std::unique_ptr<Child>> child =
      Child::Spawn(context_.options->worker_program, SpawnArguments(), {kSpinning});
  if (!child.ok()) return std::string(child.status().message());
  {
    absl::MutexLock lock(&mu_);
    if (stopping_) return "stopped";
    closed_ = false;
    child_ = child->get();
    // OnHello needs session_ and waits for this lock.
    session_ = Session::Open(ChannelOverSocket((*child)->TakeSocket()), this);
  }
  // The end of the process ends the stream, and the end of the stream ends the process (OnClosed):
  // waiting for one of them is enough.
  std::string reason = (*child)->Wait();
  absl::MutexLock lock(&mu_);
  child_ = nullptr;
  session_->Close();
  mu_.Await(absl::Condition(&closed_));
  session_.reset();
  if (!absl::IsUnavailable(close_status_) && !absl::IsCancelled(close_status_)) {
    absl::StrAppend(&reason, ": ", close_status_.message());
  }
  return reason;
}

std::string Fleet::Member::LiveAttached() {
  const FleetOptions& options = *context_.options;
  auto channel = DialWorker(
      place_.address, {options.tls_ca_file, options.tls_certificate_file, options.tls_key_file});
  if (!channel.ok()) return std::string(channel.status().message());
  absl::MutexLock lock(&mu_);
  if (stopping_) return "stopped";
  closed_ = false;
  session_ = Session::Open(*std::move(channel), this);
  mu_.Await(absl::Condition(&closed_));
  session_.reset();
  return absl::StrCat("lost connection to ", place_.address, ": ", close_status_.message());
}

std::vector<std::string> Fleet::Member::SpawnArguments() const {
  const FleetOptions& options = *context_.options;
  uint32_t threads = options.worker_threads;
  if (threads == 0) {
    threads = std::max<size_t>(1, std::thread::hardware_concurrency() / options.devices.size());
  }
  std::vector<std::string> arguments = {absl::StrCat("--fd=", Child::kChildFd),
                                        absl::StrCat("--device=", place_.device),
                                        absl::StrCat("--threads=", threads)};
  arguments.insert(arguments.end(), options.worker_args.begin(), options.worker_args.end());
  return arguments;
}

void Fleet::Member::BlameModelBeingLoaded(const std::string& reason) {
  ModelId model = 0;
  {
    absl::MutexLock lock(&mu_);
    if (loading_.empty()) return;
    model = loading_.front();
    if (!asked_.contains(model)) return;  // it is not wanted any more
    if (++deaths_while_loading_[model] < kMaxDeathsWhileLoading) return;
  }
  Fail(model, absl::InternalError(absl::StrCat("the worker died ", kMaxDeathsWhileLoading,
                                               " times while loading it, last: ", reason)));
}

void Fleet::Member::Fail(ModelId model, const absl::Status& status) {
  {
    absl::MutexLock lock(&mu_);
    if (!failed_.insert(model).second) return;
  }
  context_.observer->OnModelFailed(place_.id, model, status);
  context_.failures->Note(model);
}

void Fleet::Member::OnHello(const WorkerHello& hello) {
  std::shared_ptr<Session> session;
  {
    absl::MutexLock lock(&mu_);
    session = session_;
  }
  up_ = was_up_ = true;
  context_.observer->OnWorkerUp(place_.id, hello.device, hello.memory.total);
  context_.events->AddWorker(place_.id, session);
  absl::MutexLock lock(&mu_);
  greeted_ = true;
  deterministic_ = context_.options->deterministic.value_or(hello.device == "cpu");
  for (const FleetModel& model : context_.models->All()) Ask(model);
}

void Fleet::Member::Ask(const FleetModel& model) {
  // It may be in the list that OnHello read, and come by itself, too.
  if (!greeted_ || failed_.contains(model.id) || !asked_.insert(model.id).second) return;
  loading_.push_back(model.id);
  const FleetOptions& options = *context_.options;
  session_->Load({model.id, model.path, options.dtype, deterministic_, options.kv_bytes,
                  options.max_context_tokens});
}

void Fleet::Member::Load(const FleetModel& model) {
  absl::MutexLock lock(&mu_);
  Ask(model);
}

void Fleet::Member::Forget(ModelId model) {
  absl::MutexLock lock(&mu_);
  failed_.erase(model);
  deaths_while_loading_.erase(model);
  if (asked_.erase(model) > 0) leaving_.insert(model);
}

bool Fleet::Member::Unload(ModelId model) {
  absl::MutexLock lock(&mu_);
  if (leaving_.erase(model) == 0) return false;
  session_->Unload(model);
  return true;
}

void Fleet::Member::OnLoaded(ModelId model, const absl::StatusOr<LoadedModel>& loaded) {
  {
    absl::MutexLock lock(&mu_);
    // One that was kept from another server overtakes those that are being read.
    std::erase(loading_, model);
    deaths_while_loading_.erase(model);
    if (!asked_.contains(model)) return;
  }
  if (!loaded.ok()) {
    Fail(model, loaded.status());
    return;
  }
  ModelCapacity capacity;
  capacity.page_tokens = loaded->page_tokens;
  capacity.pages = loaded->pages;
  capacity.page_bytes = loaded->page_bytes;
  {
    // After Forget the batcher must not hear of the model.
    absl::MutexLock lock(&mu_);
    if (!asked_.contains(model)) return;
    context_.events->ModelReady(place_.id, model, capacity);
  }
  // Now it is told to clients: whoever calls then must find the model served.
  context_.observer->OnModelLoaded(place_.id, model, *loaded);
}

void Fleet::Member::OnUnloaded(ModelId model) {
  context_.observer->OnModelUnloaded(place_.id, model);
}

void Fleet::Member::OnStepDone(StepResult result) {
  context_.events->StepDone(place_.id, std::move(result));
}

void Fleet::Member::OnSaved(SavePoint save_point) {
  context_.events->Saved(place_.id, std::move(save_point));
}

void Fleet::Member::OnClosed(const absl::Status& status) {
  if (up_) context_.events->WorkerLost(place_.id);
  up_ = false;
  absl::MutexLock lock(&mu_);
  closed_ = true;
  close_status_ = status;
  if (child_ != nullptr) child_->Signal(SIGKILL);
}

}  // namespace hanmo
