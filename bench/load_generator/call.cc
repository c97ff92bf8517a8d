#include "bench/load_generator/call.h"

#include <utility>

namespace hanmo {
namespace {

using hanmo::v1::GenerateResponse;
using hanmo::v1::GenerateStreamResponse;
using hanmo::v1::Generation;

// FNV-1a: the same in every run, unlike abseil's hashes.
constexpr uint64_t kHashStart = 0xcbf29ce484222325;
uint64_t Hash(uint64_t hash, const void* data, size_t size) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (size_t i = 0; i < size; ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
  return hash;
}

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

grpc::Status Loss(const char* what) { return {grpc::StatusCode::DATA_LOSS, what}; }

class PictureCall final : public Call {
 public:
  using Call::Call;

 private:
  void Begin(Generation::Stub* stub) override {
    stub->async()->Generate(&context_, &arrival_.request, &response_,
                            [this](const grpc::Status& status) { Finish(status); });
  }

  void Finish(grpc::Status status) {
    outcome_.latency = SinceDue();
    if (status.ok()) {
      Take(response_);
      if (response_.outputs_size() != 1 || response_.outputs(0).picture().data().empty()) {
        status = Loss("no picture in the answer");
      } else {
        const std::string& file = response_.outputs(0).picture().data();
        outcome_.hash = Hash(kHashStart, file.data(), file.size());
      }
    }
    End(status);
  }

  GenerateResponse response_;
};

class TextCall final : public Call, private grpc::ClientReadReactor<GenerateStreamResponse> {
 public:
  using Call::Call;

 private:
  void Begin(Generation::Stub* stub) override {
    stub->async()->GenerateStream(&context_, &arrival_.request, this);
    StartRead(&event_);
    StartCall();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return;
    if (event_.has_text() && event_.text().token_ids_size() > 0) {
      const auto& ids = event_.text().token_ids();
      outcome_.deltas.push_back({SinceDue(), ids.size()});
      streamed_ = Hash(streamed_, ids.data(), ids.size() * sizeof(ids[0]));
    } else if (event_.has_final() && event_.final().outputs_size() == 1) {
      Take(event_.final());
      const auto& ids = event_.final().outputs(0).text().token_ids();
      outcome_.hash = Hash(kHashStart, ids.data(), ids.size() * sizeof(ids[0]));
    }
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    outcome_.latency = SinceDue();
    const bool whole = outcome_.hash == streamed_;
    End(status.ok() && !whole ? Loss("the deltas are not the final text") : status);
  }

  GenerateStreamResponse event_;
  uint64_t streamed_ = kHashStart;
};

}  // namespace

Call::Call(const TraceArrival& arrival, absl::Time due, Ended ended)
    : arrival_(arrival), ended_(std::move(ended)) {
  outcome_.due = due;
  if (arrival.deadline != absl::InfiniteDuration()) {
    context_.set_deadline(absl::ToChronoTime(due + arrival.deadline));
  }
}

std::shared_ptr<Call> Call::Create(const TraceArrival& arrival, absl::Time due, Ended ended) {
  if (arrival.streams()) return std::make_shared<TextCall>(arrival, due, std::move(ended));
  return std::make_shared<PictureCall>(arrival, due, std::move(ended));
}

void Call::Send(Generation::Stub* stub) {
  outcome_.late = SinceDue();
  Begin(stub);
}

void Call::Cut() {
  cut_ = true;
  context_.TryCancel();
}

void Call::Take(const GenerateResponse& response) {
  outcome_.queue = FromProto(response.timings().queue());
  outcome_.device = FromProto(response.usage().device_time());
}

void Call::End(const grpc::Status& status) {
  outcome_.status = status;
  outcome_.cut = cut_ && status.error_code() == grpc::StatusCode::CANCELLED;
  const Ended ended = std::move(ended_);
  ended(this);
}

}  // namespace hanmo
