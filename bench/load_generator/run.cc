#include "bench/load_generator/run.h"

#include <chrono>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"

namespace hanmo {
namespace {

constexpr std::chrono::seconds kConnectTimeout(10);

}  // namespace

Run::Run(RunOptions options) : options_(std::move(options)) {}

absl::Status Run::Connect() {
  if (auto status = ConnectTo(options_.picture_server, &picture_stubs_); !status.ok()) {
    return status;
  }
  return ConnectTo(options_.text_server, &text_stubs_);
}

absl::Status Run::ConnectTo(const std::string& server, Stubs* stubs) const {
  for (int i = 0; i < options_.connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    // Channels to one address would share a connection.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    const auto channel =
        grpc::CreateCustomChannel(server, grpc::InsecureChannelCredentials(), arguments);
    if (!channel->WaitForConnected(std::chrono::system_clock::now() + kConnectTimeout)) {
      return absl::DeadlineExceededError(absl::StrCat("no server answers at ", server));
    }
    stubs->push_back(hanmo::v1::Generation::NewStub(channel));
  }
  return absl::OkStatus();
}

std::vector<Outcome> Run::Play(const std::vector<TraceArrival>& trace) {
  trace_ = &trace;
  start_ = absl::Now();
  for (size_t i = 0; i < trace.size(); ++i) {
    if (options_.one_by_one) {
      AwaitAll(absl::InfiniteDuration());
      Start(i, absl::Now());
    } else {
      absl::SleepFor(start_ + trace[i].at - absl::Now());
      Start(i, start_ + trace[i].at);
    }
  }
  absl::SleepFor(start_ + options_.length - absl::Now());
  Cut(/*all=*/false);
  AwaitAll(options_.drain);
  Cut(/*all=*/true);
  AwaitAll(absl::InfiniteDuration());
  absl::MutexLock lock(&mu_);
  return std::move(outcomes_);
}

void Run::Start(size_t index, absl::Time due) {
  const TraceArrival& arrival = (*trace_)[index];
  const Stubs& stubs = arrival.streams() ? text_stubs_ : picture_stubs_;
  std::shared_ptr<Call> call =
      Call::Create(arrival, due, [this, index](Call* ended) { Ended(index, ended); });
  size_t turn = 0;
  {
    absl::MutexLock lock(&mu_);
    // It repeats after an end that came with or before the run's.
    if (over_ && arrival.repeat) return;
    calls_.emplace(call.get(), call);
    ++open_;
    turn = sent_++;
  }
  // It may end, on another thread, before this is back.
  call->Send(stubs[turn % stubs.size()].get());
}

void Run::Ended(size_t index, Call* call) {
  call->outcome().arrival = index;
  const bool again = call->arrival().repeat && call->outcome().status.ok();
  {
    absl::MutexLock lock(&mu_);
    outcomes_.push_back(std::move(call->outcome()));
  }
  if (again) Start(index, absl::Now());
  std::shared_ptr<Call> last;
  {
    absl::MutexLock lock(&mu_);
    const auto found = calls_.find(call);
    last = std::move(found->second);
    calls_.erase(found);
  }
  last.reset();
  absl::MutexLock lock(&mu_);
  --open_;
}

void Run::Cut(bool all) {
  std::vector<std::shared_ptr<Call>> calls;
  {
    absl::MutexLock lock(&mu_);
    over_ = true;
    for (const auto& [call, reference] : calls_) {
      if (all || call->arrival().repeat) calls.push_back(reference);
    }
  }
  // gRPC may run callbacks, which take the lock, on this thread.
  for (const auto& call : calls) call->Cut();
}

void Run::AwaitAll(absl::Duration patience) {
  const auto none = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) { return open_ == 0; };
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(&none), patience);
}

}  // namespace hanmo
