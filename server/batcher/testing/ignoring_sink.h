// A sink for tests and benchmarks that look at little of what a request is told, or at nothing.
#ifndef HANMO_SERVER_BATCHER_TESTING_IGNORING_SINK_H_
#define HANMO_SERVER_BATCHER_TESTING_IGNORING_SINK_H_

#include "server/batcher/sink.h"

namespace hanmo::testing {

// Takes everything at once and keeps nothing; those that derive from it override what they look at.
class IgnoringSink : public Sink {
 public:
  void OnQueued(uint32_t, absl::Duration) override {}
  void OnStep(uint32_t, uint32_t, uint32_t) override {}
  bool OnTokens(uint32_t, absl::Span<const Token>) override { return true; }
  void OnPreview(uint32_t, uint32_t, Pixels) override {}
  void OnPicture(uint32_t, Pixels, std::optional<float>) override {}
  void OnSampleEnd(uint32_t, SampleEnd, uint32_t) override {}
  void OnDone(const absl::Status&, const Usage&) override {}
  bool full() const override { return false; }
};

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_BATCHER_TESTING_IGNORING_SINK_H_
