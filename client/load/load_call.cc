#include "client/load/load_call.h"

#include <map>
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

template <typename Ids>
uint64_t HashIds(uint64_t hash, const Ids& ids) {
  return Hash(hash, ids.data(), ids.size() * sizeof(ids[0]));
}

absl::Duration FromProto(const google::protobuf::Duration& duration) {
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

grpc::Status Loss(const char* what) { return {grpc::StatusCode::DATA_LOSS, what}; }

class PictureCall final : public LoadCall {
 public:
  using LoadCall::LoadCall;

 private:
  void Begin(Generation::Stub* stub) override {
    stub->async()->Generate(&context_, &arrival_.request, &response_,
                            [this](const grpc::Status& status) { Finish(status); });
  }

  void Finish(grpc::Status status) {
    outcome_.latency = SinceDue();
    if (status.ok()) {
      Take(response_);
      if (response_.outputs_size() == 0) status = Loss("no picture in the answer");
      outcome_.hash = kHashStart;
      for (const hanmo::v1::Output& output : response_.outputs()) {
        const std::string& file = output.picture().data();
        if (file.empty()) status = Loss("an empty picture in the answer");
        outcome_.hash = Hash(outcome_.hash, file.data(), file.size());
      }
    }
    End(status);
  }

  GenerateResponse response_;
};

class TextCall final : public LoadCall, private grpc::ClientReadReactor<GenerateStreamResponse> {
 public:
  using LoadCall::LoadCall;

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
      outcome_.deltas.push_back({SinceDue(), ids.size(), event_.text().index()});
      uint64_t& hash = streamed_.try_emplace(event_.text().index(), kHashStart).first->second;
      hash = HashIds(hash, ids);
    } else if (event_.has_final()) {
      Take(event_.final());
      outcome_.hash = kHashStart;
      whole_ = event_.final().outputs_size() > 0;
      for (const hanmo::v1::Output& output : event_.final().outputs()) {
        const auto& ids = output.text().token_ids();
        outcome_.hash = HashIds(outcome_.hash, ids);
        const auto streamed = streamed_.find(output.index());
        whole_ &= HashIds(kHashStart, ids) ==
                  (streamed == streamed_.end() ? kHashStart : streamed->second);
      }
    }
    StartRead(&event_);
  }

  void OnDone(const grpc::Status& status) override {
    outcome_.latency = SinceDue();
    End(status.ok() && !whole_ ? Loss("the deltas are not the final text") : status);
  }

  GenerateStreamResponse event_;
  std::map<uint32_t, uint64_t> streamed_;  // hashes by index of the output
  bool whole_ = false;
};

}  // namespace

LoadCall::LoadCall(Arrival arrival, absl::Time due, Ended ended)
    : arrival_(std::move(arrival)), ended_(std::move(ended)) {
  outcome_.due = due;
  if (arrival_.deadline != absl::InfiniteDuration()) {
    context_.set_deadline(absl::ToChronoTime(due + arrival_.deadline));
  }
}

std::shared_ptr<LoadCall> LoadCall::Create(Arrival arrival, absl::Time due, Ended ended) {
  if (arrival.streams()) {
    return std::make_shared<TextCall>(std::move(arrival), due, std::move(ended));
  }
  return std::make_shared<PictureCall>(std::move(arrival), due, std::move(ended));
}

void LoadCall::Send(Generation::Stub* stub) {
  outcome_.late = SinceDue();
  Begin(stub);
}

void LoadCall::Cut() {
  cut_ = true;
  context_.TryCancel();
}

void LoadCall::Take(const GenerateResponse& response) {
  outcome_.queue = FromProto(response.timings().queue());
  outcome_.device = FromProto(response.usage().device_time());
  outcome_.pictures = response.usage().pictures();
  outcome_.steps = response.usage().steps();
}

void LoadCall::End(const grpc::Status& status) {
  outcome_.status = status;
  outcome_.cut = cut_ && status.error_code() == grpc::StatusCode::CANCELLED;
  const Ended ended = std::move(ended_);
  ended(this);
}

}  // namespace hanmo
