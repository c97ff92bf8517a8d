#include "workers/service.h"

#include <unistd.h>

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

// Of a clock that never jumps; its zero means nothing.
absl::Duration Uptime() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

WorkerService::WorkerService(Executor* executor, std::function<void()> start_thread,
                             std::function<void()> stream_ended)
    : executor_(executor),
      start_thread_(std::move(start_thread)),
      stream_ended_(std::move(stream_ended)),
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
      executor_->Detach();
    } else {
      Execute(std::move(command));
    }
  }
}

void WorkerService::Execute(Command command) {
  wire::RunRequest& request = command.request;
  wire::RunResponse response;
  switch (request.command_case()) {
    case wire::RunRequest::kLoad: {
      const absl::Duration start = Uptime();
      absl::StatusOr<LoadedModel> loaded = executor_->Load(FromWire(request.load()));
      if (loaded.ok()) loaded->load_seconds = absl::ToDoubleSeconds(Uptime() - start);
      ToWire(request.load().model(), loaded, response.mutable_loaded());
      command.stream->Write(response);
      return;
    }
    case wire::RunRequest::kUnload:
      executor_->Unload(request.unload().model());
      response.mutable_unloaded()->set_model(request.unload().model());
      command.stream->Write(response);
      return;
    case wire::RunRequest::kBegin: {
      absl::StatusOr<BeginCommand> begin = FromWire(std::move(*request.mutable_begin()));
      // Without a kind there is no sample: its first step reports the unknown handle.
      if (!begin.ok()) return;
      executor_->Begin(begin->sample, begin->model, std::move(begin->job),
                       std::move(begin->resume));
      return;
    }
    case wire::RunRequest::kStep:
      ExecuteStep(request.step(), response.mutable_step_done());
      command.stream->Write(response);
      return;
    case wire::RunRequest::kSave:
      for (SavePoint& save_point :
           executor_->Save({request.save().samples().begin(), request.save().samples().end()})) {
        ToWire(std::move(save_point), response.mutable_saved());
        command.stream->Write(response);
      }
      return;
    case wire::RunRequest::kDrop:
      executor_->Drop({request.drop().samples().begin(), request.drop().samples().end()});
      return;
    case wire::RunRequest::kHello:
    case wire::RunRequest::COMMAND_NOT_SET:
      return;
  }
}

void WorkerService::ExecuteStep(const wire::Step& request, wire::StepDone* done) {
  const absl::Duration start = Uptime();
  StepResult result;
  if (absl::StatusOr<Step> step = FromWire(request); step.ok()) {
    result = executor_->Run(*step);
  } else {
    result.status = step.status();
  }
  const absl::Duration end = Uptime();
  result.step = request.step();
  result.device_time = end - start;
  result.idle_time = last_step_end_.has_value() ? start - *last_step_end_ : absl::ZeroDuration();
  last_step_end_ = end;
  ToWire(std::move(result), done);
}

}  // namespace hanmo
