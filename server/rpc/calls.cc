#include "server/rpc/calls.h"

#include <utility>

namespace hanmo {

void Calls::Begin() {
  absl::MutexLock lock(&mu_);
  ++calls_;
}

void Calls::End() {
  absl::MutexLock lock(&mu_);
  --calls_;
}

int Calls::count() {
  absl::MutexLock lock(&mu_);
  return calls_;
}

bool Calls::AwaitNone(absl::Duration patience) {
  absl::MutexLock lock(&mu_);
  return mu_.AwaitWithTimeout(absl::Condition(this, &Calls::none), patience);
}

void Calls::Register(const std::string& request_id, const std::shared_ptr<GenerationCall>& call) {
  absl::MutexLock lock(&mu_);
  by_id_.emplace(request_id, Entry{call.get(), call});
}

void Calls::Unregister(const std::string& request_id, const GenerationCall* call) {
  absl::MutexLock lock(&mu_);
  const auto [begin, end] = by_id_.equal_range(request_id);
  for (auto entry = begin; entry != end; ++entry) {
    if (entry->second.key != call) continue;
    by_id_.erase(entry);
    return;
  }
}

std::vector<std::shared_ptr<GenerationCall>> Calls::Find(const std::string& request_id) {
  std::vector<std::shared_ptr<GenerationCall>> found;
  absl::MutexLock lock(&mu_);
  const auto [begin, end] = by_id_.equal_range(request_id);
  for (auto entry = begin; entry != end; ++entry) {
    if (auto call = entry->second.call.lock()) found.push_back(std::move(call));
  }
  return found;
}

}  // namespace hanmo
