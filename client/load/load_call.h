// One call under way: sends it through gRPC's callback interface and reads the answer.
#ifndef HANMO_CLIENT_LOAD_LOAD_CALL_H_
#define HANMO_CLIENT_LOAD_LOAD_CALL_H_

#include <atomic>
#include <functional>
#include <memory>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/load/arrival.h"
#include "client/load/outcome.h"
#include "grpcpp/client_context.h"
#include "hanmo/v1/generation.grpc.pb.h"

namespace hanmo {

class LoadCall {
 public:
  // Runs once, on a thread of gRPC's, when the call has ended; it may destroy the call.
  using Ended = std::function<void(LoadCall*)>;

  // By Create.
  LoadCall(Arrival arrival, absl::Time due, Ended ended);
  virtual ~LoadCall() = default;

  // The caller keeps the call until `ended` runs.
  static std::shared_ptr<LoadCall> Create(Arrival arrival, absl::Time due, Ended ended);

  // Once.
  void Send(hanmo::v1::Generation::Stub* stub);

  // Ends it early, from any thread, at any time; then its outcome is marked as cut.
  void Cut();

  const Arrival& arrival() const { return arrival_; }
  // Complete once `ended` runs.
  Outcome& outcome() { return outcome_; }

 protected:
  virtual void Begin(hanmo::v1::Generation::Stub* stub) = 0;

  absl::Duration SinceDue() const { return absl::Now() - outcome_.due; }
  void Take(const hanmo::v1::GenerateResponse& response);
  void End(const grpc::Status& status);

  const Arrival arrival_;
  grpc::ClientContext context_;
  Outcome outcome_;

 private:
  Ended ended_;
  std::atomic<bool> cut_ = false;
};

}  // namespace hanmo

#endif  // HANMO_CLIENT_LOAD_LOAD_CALL_H_
