#include "workers/service.h"

#include <unistd.h>

#include <chrono>
#include <set>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

// Reading the memory in use takes longer than a short step may.
constexpr absl::Duration kMemoryInterval = absl::Milliseconds(100);

// Of a clock that never jumps; its zero means nothing.
absl::Duration Uptime() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

class WorkerService::SlicedStep final : public YieldListener {
 public:
  SlicedStep(WorkerService* service, const Step& step, Stream* stream)
      : service_(service), step_(step), stream_(stream) {
    for (const Row& row : step.rows) samples_.insert(row.sample);
    StartSlice(step.budget);
  }

  uint64_t id() const { return step_.id; }
  absl::Duration start() const { return start_; }  // of the slice
  bool abandoned() const { return abandoned_; }
  // Whether any of its samples is still there.
  bool wanted() const { return !samples_.empty(); }

  void StartSlice(absl::Duration budget) {
    start_ = Uptime();
    end_ = budget > absl::ZeroDuration() ? start_ + budget : absl::InfiniteDuration();
  }
  void Forget(const std::vector<SampleHandle>& dropped) {
    for (SampleHandle sample : dropped) samples_.erase(sample);
  }
  // Whether the step must be gone before the command runs.
  bool IsEndedBy(const Command& command) const {
    const wire::RunRequest& request = command.request;
    return command.stream == nullptr ||
           (request.has_load() && request.load().model() == step_.model) ||
           (request.has_unload() && request.unload().model() == step_.model);
  }

  bool OnYieldPoint() override {
    if (Uptime() < end_) return true;
    StepResult result;
    result.step = step_.id;
    result.suspended = true;
    service_->Answer(stream_, std::move(result), start_);
    abandoned_ = !service_->AwaitResume(this);
    return !abandoned_;
  }

 private:
  WorkerService* const service_;
  const Step& step_;
  Stream* const stream_;
  std::set<SampleHandle> samples_;  // not dropped yet
  absl::Duration start_;
  absl::Duration end_;  // when the budget has passed
  bool abandoned_ = false;
};

WorkerService::WorkerService(Executor* executor, std::function<void()> start_thread,
                             std::function<void()> stream_ended)
    : executor_(executor),
      start_thread_(std::move(start_thread)),
      stream_ended_(std::move(stream_ended)),
      loading_thread_(start_thread_),
      compute_([this] { Compute(); }) {}

WorkerService::~WorkerService() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  compute_.join();
}

grpc::Status WorkerService::Run(grpc::ServerContext* context, Stream* stream) {
  {
    absl::MutexLock lock(&mu_);
    if (serving_) {
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "this worker serves another server");
    }
    serving_ = true;
  }
  grpc::Status status = Handshake(stream);
  wire::RunRequest request;
  while (status.ok() && stream->Read(&request)) Enqueue({stream, std::move(request)});
  {
    // The server is gone: what it asked for is not wanted any more. The stream must outlive the
    // command that is being executed.
    absl::MutexLock lock(&mu_);
    queue_.clear();
    queue_.push_back({});
    mu_.Await(absl::Condition(this, &WorkerService::idle));
    serving_ = false;
  }
  stream_ended_();
  return status;
}

grpc::Status WorkerService::Handshake(Stream* stream) {
  wire::RunRequest request;
  if (!stream->Read(&request) || !request.has_hello()) {
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "the first command must be Hello");
  }
  if (request.hello().protocol_version() != kWorkerProtocolVersion) {
    return grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                        absl::StrCat("protocol version ", request.hello().protocol_version(),
                                     ", this worker has ", kWorkerProtocolVersion));
  }
  WorkerHello hello = executor_->Describe();
  hello.pid = getpid();
  wire::RunResponse response;
  ToWire(hello, response.mutable_hello());
  stream->Write(response);
  return grpc::Status::OK;
}

void WorkerService::Enqueue(Command command) {
  absl::MutexLock lock(&mu_);
  mu_.Await(absl::Condition(this, &WorkerService::has_room));
  queue_.push_back(std::move(command));
}

void WorkerService::Compute() {
  start_thread_();
  while (true) {
    Command command;
    {
      absl::MutexLock lock(&mu_);
      busy_ = false;
      mu_.Await(absl::Condition(this, &WorkerService::ready));
      if (stopping_) return;
      command = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
    }
    if (command.stream == nullptr) {
      Detach();
    } else {
      Execute(std::move(command));
    }
  }
}

void WorkerService::Execute(Command command) {
  if (command.read != nullptr) return FinishLoad(command.read);
  wire::RunRequest& request = command.request;
  switch (request.command_case()) {
    case wire::RunRequest::kLoad:
      return Load(command);
    case wire::RunRequest::kUnload:
      return Unload(command);
    case wire::RunRequest::kBegin: {
      absl::StatusOr<BeginCommand> begin = FromWire(std::move(*request.mutable_begin()));
      // Without a kind there is no sample: its first step reports the unknown handle.
      if (!begin.ok()) return;
      executor_->Begin(begin->sample, begin->model, std::move(begin->job),
                       std::move(begin->resume));
      return;
    }
    case wire::RunRequest::kStep:
      return Run(command);
    case wire::RunRequest::kResume: {
      // The one that is waited for never comes here.
      wire::RunResponse response;
      response.mutable_step_done()->set_step(request.resume().step());
      response.mutable_step_done()->set_already_done(true);
      command.stream->Write(response);
      return;
    }
    case wire::RunRequest::kSave:
      return Save(command);
    case wire::RunRequest::kDrop:
      return Drop(command);
    case wire::RunRequest::kHello:
    case wire::RunRequest::COMMAND_NOT_SET:
      return;
  }
}

void WorkerService::Detach() {
  for (auto& [model, loading] : loadings_) loading->unwanted = true;
  loadings_.clear();
  executor_->Detach();
}

void WorkerService::Load(const Command& command) {
  auto loading = std::make_shared<Loading>();
  loading->command = FromWire(command.request.load());
  loading->stream = command.stream;
  loading->start = Uptime();
  const std::function<void()> read = executor_->Reading(loading->command);
  if (read == nullptr) return AnswerLoad(*loading, executor_->Load(loading->command));
  loadings_[loading->command.model] = loading;
  loading_thread_.Submit([this, loading, read] {
    loading->start = Uptime();
    if (!loading->unwanted) read();
    absl::MutexLock lock(&mu_);
    queue_.push_back({loading->stream, {}, loading});
  });
}

void WorkerService::FinishLoad(const std::shared_ptr<Loading>& loading) {
  const auto found = loadings_.find(loading->command.model);
  // Its stream has ended.
  if (found == loadings_.end() || found->second != loading) return;
  loadings_.erase(found);
  if (!loading->unwanted) return AnswerLoad(*loading, executor_->Load(loading->command));
  AnswerLoad(*loading, absl::CancelledError("it was unloaded while it was being read"));
  wire::RunRequest unload;
  unload.mutable_unload()->set_model(loading->command.model);
  Unload({loading->stream, unload, nullptr});
}

void WorkerService::AnswerLoad(const Loading& loading, absl::StatusOr<LoadedModel> loaded) {
  if (loaded.ok()) loaded->load_seconds = absl::ToDoubleSeconds(Uptime() - loading.start);
  memory_read_ = -absl::InfiniteDuration();
  wire::RunResponse response;
  ToWire(loading.command.model, loaded, response.mutable_loaded());
  loading.stream->Write(response);
}

void WorkerService::Unload(const Command& command) {
  const ModelId model = command.request.unload().model();
  // Its memory is not free before it is read.
  if (const auto found = loadings_.find(model); found != loadings_.end()) {
    found->second->unwanted = true;
    return;
  }
  executor_->Unload(model);
  wire::RunResponse response;
  response.mutable_unloaded()->set_model(model);
  command.stream->Write(response);
}

void WorkerService::Save(const Command& command) {
  const auto& samples = command.request.save().samples();
  for (SavePoint& save_point : executor_->Save({samples.begin(), samples.end()})) {
    wire::RunResponse response;
    ToWire(std::move(save_point), response.mutable_saved());
    command.stream->Write(response);
  }
}

void WorkerService::Drop(const Command& command) {
  const auto& samples = command.request.drop().samples();
  executor_->Drop({samples.begin(), samples.end()});
  if (suspended_ != nullptr) suspended_->Forget({samples.begin(), samples.end()});
}

void WorkerService::Run(const Command& command) {
  const absl::Duration start = Uptime();
  StepResult result;
  absl::StatusOr<Step> step = FromWire(command.request.step());
  result.status = step.status();
  if (step.ok()) result.status = CheckBudget(*step);
  if (result.status.ok()) {
    if (step->budget > absl::ZeroDuration()) return RunInSlices(*step, command.stream);
    result = executor_->Run(*step);
  }
  result.step = command.request.step().step();
  Answer(command.stream, std::move(result), start);
}

absl::Status WorkerService::CheckBudget(const Step& step) const {
  if (step.kind == StepKind::kText) {
    if (step.budget == absl::ZeroDuration()) return absl::OkStatus();
    return absl::InvalidArgumentError("step.budget_us: 0 expected, texts are not suspended");
  }
  if (suspended_ == nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("step ", step.id, ": step ", suspended_->id(), " is suspended"));
}

void WorkerService::RunInSlices(const Step& step, Stream* stream) {
  SlicedStep sliced(this, step, stream);
  StepResult result = executor_->RunInSlices(step, &sliced);
  // Nobody waits for an abandoned step: its last slice was answered.
  if (sliced.abandoned()) return;
  result.step = step.id;
  Answer(stream, std::move(result), sliced.start());
}

bool WorkerService::AwaitResume(SlicedStep* step) {
  suspended_ = step;
  const absl::Cleanup over = [this] { suspended_ = nullptr; };
  while (step->wanted()) {
    Command command;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &WorkerService::ready));
      // These wait until the step is gone.
      if (stopping_ || step->IsEndedBy(queue_.front())) return false;
      command = std::move(queue_.front());
      queue_.pop_front();
    }
    if (command.request.has_resume() && command.request.resume().step() == step->id()) {
      step->StartSlice(FromWire(command.request.resume()).budget);
      return true;
    }
    Execute(std::move(command));
  }
  return false;
}

void WorkerService::Answer(Stream* stream, StepResult result, absl::Duration start) {
  const absl::Duration end = Uptime();
  result.device_time = end - start;
  result.idle_time = last_step_end_.has_value() ? start - *last_step_end_ : absl::ZeroDuration();
  if (end - memory_read_ >= kMemoryInterval) {
    memory_ = executor_->memory();
    memory_read_ = end;
  }
  result.memory = memory_;
  last_step_end_ = end;
  wire::RunResponse response;
  ToWire(std::move(result), response.mutable_step_done());
  stream->Write(response);
}

}  // namespace hanmo
