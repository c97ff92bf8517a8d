#include "server/worker_link/session.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"

namespace hanmo {

std::shared_ptr<Session> Session::Open(std::shared_ptr<grpc::Channel> channel,
                                       SessionListener* listener) {
  std::shared_ptr<Session> session(new Session(std::move(channel), listener));
  session->self_ = session;
  session->stub_->async()->Run(&session->context_, session.get());
  // Writes start outside of reactions: the hold keeps the stream from being finished under them.
  session->AddHold();
  wire::RunRequest hello;
  hello.mutable_hello()->set_protocol_version(kWorkerProtocolVersion);
  session->Send(std::move(hello));
  session->StartRead(&session->incoming_);
  session->StartCall();
  return session;
}

Session::Session(std::shared_ptr<grpc::Channel> channel, SessionListener* listener)
    : channel_(std::move(channel)), stub_(wire::Worker::NewStub(channel_)), listener_(listener) {}

void Session::Load(const LoadCommand& load) {
  wire::RunRequest request;
  ToWire(load, request.mutable_load());
  Send(std::move(request));
}

void Session::Unload(ModelId model) {
  wire::RunRequest request;
  request.mutable_unload()->set_model(model);
  Send(std::move(request));
}

void Session::Begin(SampleHandle sample, ModelId model, const SampleJob& job,
                    hanmo::Resume resume) {
  wire::RunRequest request;
  ToWire(BeginCommand{sample, model, job, std::move(resume)}, request.mutable_begin());
  Send(std::move(request));
}

void Session::Run(const Step& step) {
  wire::RunRequest request;
  ToWire(step, request.mutable_step());
  Send(std::move(request));
}

void Session::Resume(uint64_t step, absl::Duration budget) {
  wire::RunRequest request;
  ToWire(ResumeCommand{step, budget}, request.mutable_resume());
  Send(std::move(request));
}

void Session::Save(const std::vector<SampleHandle>& samples) {
  wire::RunRequest request;
  ToWire(samples, request.mutable_save());
  Send(std::move(request));
}

void Session::Drop(const std::vector<SampleHandle>& samples) {
  wire::RunRequest request;
  ToWire(samples, request.mutable_drop());
  Send(std::move(request));
}

void Session::Close() { context_.TryCancel(); }

void Session::Send(wire::RunRequest request) {
  absl::MutexLock lock(&mu_);
  if (closed_) return;
  outgoing_.push_back(std::move(request));
  // gRPC runs OnWriteDone on another thread, so starting the write under the lock is safe.
  if (outgoing_.size() == 1) StartWrite(&outgoing_.front());
}

void Session::OnWriteDone(bool ok) {
  absl::MutexLock lock(&mu_);
  outgoing_.pop_front();
  // A failed write is followed by a failed read, which ends the session.
  if (!ok) outgoing_.clear();
  if (!outgoing_.empty() && !closed_) StartWrite(&outgoing_.front());
}

void Session::OnReadDone(bool ok) {
  if (ok) {
    Deliver(incoming_);
    incoming_.Clear();
    StartRead(&incoming_);
    return;
  }
  {
    absl::MutexLock lock(&mu_);
    closed_ = true;
  }
  RemoveHold();
}

void Session::OnDone(const grpc::Status& status) {
  absl::Status end(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  if (!refused_.ok()) end = refused_;
  SessionListener* const listener = listener_;
  // The owner still holds the session and destroys it, and with it the channel, on its own thread:
  // the last channel of a process joins gRPC's callback threads, of which this is one.
  self_.reset();
  listener->OnClosed(end);
}

void Session::Deliver(wire::RunResponse& response) {
  switch (response.event_case()) {
    case wire::RunResponse::kHello:
      DeliverHello(response.hello());
      return;
    case wire::RunResponse::kLoaded:
      listener_->OnLoaded(response.loaded().model(), FromWire(response.loaded()));
      return;
    case wire::RunResponse::kStepDone:
      listener_->OnStepDone(FromWire(std::move(*response.mutable_step_done())));
      return;
    case wire::RunResponse::kSaved:
      listener_->OnSaved(FromWire(std::move(*response.mutable_saved())));
      return;
    case wire::RunResponse::kUnloaded:
      listener_->OnUnloaded(response.unloaded().model());
      return;
    case wire::RunResponse::EVENT_NOT_SET:
      return;
  }
}

void Session::DeliverHello(const wire::HelloReply& hello) {
  if (hello.protocol_version() == kWorkerProtocolVersion) {
    listener_->OnHello(FromWire(hello));
    return;
  }
  refused_ = absl::FailedPreconditionError(absl::StrCat(
      "worker protocol version ", hello.protocol_version(), ", expected ", kWorkerProtocolVersion));
  Close();
}

}  // namespace hanmo
