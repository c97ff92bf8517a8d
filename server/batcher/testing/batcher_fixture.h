// What every batcher test needs: a batcher under a clock that only the test moves, a worker, sinks
// that remember, jobs.
#ifndef HANMO_SERVER_BATCHER_TESTING_BATCHER_FIXTURE_H_
#define HANMO_SERVER_BATCHER_TESTING_BATCHER_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/batcher/batcher.h"
#include "server/batcher/testing/fake_worker.h"

namespace hanmo::testing {

struct RecordingSink final : public Sink {
  struct End {
    SampleEnd end;
    uint32_t stop_id;
  };
  struct Output {
    std::vector<uint32_t> tokens;
    std::vector<uint32_t> steps;
    std::string picture;
    std::optional<float> score;
    std::optional<End> end;
  };

  explicit RecordingSink(size_t samples) : outputs(samples) {}
  void OnQueued(uint32_t position, absl::Duration wait) override {
    positions.push_back(position);
    waits.push_back(wait);
  }
  void OnStep(uint32_t index, uint32_t step, uint32_t) override {
    outputs[index].steps.push_back(step);
    if (is_full) ++late;
  }
  bool OnTokens(uint32_t index, absl::Span<const Token> tokens) override {
    for (const Token& token : tokens) outputs[index].tokens.push_back(token.id);
    if (is_full) ++late;
    return outputs[index].tokens.size() < stop_after;
  }
  void OnPreview(uint32_t, uint32_t step, Pixels) override { previews.push_back(step); }
  void OnPicture(uint32_t index, Pixels pixels, std::optional<float> score) override {
    outputs[index].picture = std::move(pixels.rgb);
    outputs[index].score = score;
  }
  void OnSampleEnd(uint32_t index, SampleEnd end, uint32_t stop_id) override {
    EXPECT_FALSE(outputs[index].end.has_value());
    outputs[index].end = End{end, stop_id};
  }
  void OnDone(const absl::Status& s, const Usage& u) override {
    EXPECT_FALSE(status.has_value()) << "done twice";
    status = s;
    usage = u;
  }
  bool full() const override { return is_full; }

  absl::StatusCode code() const {
    return status.has_value() ? status->code() : absl::StatusCode::kUnknown;
  }

  std::vector<Output> outputs;
  std::vector<uint32_t> positions;
  std::vector<absl::Duration> waits;
  std::vector<uint32_t> previews;
  std::optional<absl::Status> status;
  Usage usage;
  bool is_full = false;
  size_t late = 0;  // results that came while it was full
  size_t stop_after = SIZE_MAX;
};

class BatcherTest : public ::testing::Test {
 protected:
  static constexpr ModelId kText = 0;
  static constexpr ModelId kPictures = 1;
  static constexpr ModelId kOtherText = 2;
  static constexpr uint32_t kPageTokens = 4;  // per page

  // Starts the batcher with one worker that serves these models; options and pages may be changed
  // before.
  void Start();
  // A worker more, ready for all of them.
  FakeWorker& AddWorker();

  static TextJob Text(uint32_t prompt_tokens, uint32_t max_tokens, uint64_t seed = 1);
  static PictureJob Picture(uint32_t steps, uint64_t seed = 1, uint32_t size = 64);

  RequestId Submit(std::vector<SampleJob> jobs, absl::Duration deadline = absl::InfiniteDuration());
  template <typename Job>
  RequestId Submit(Job job, absl::Duration deadline = absl::InfiniteDuration()) {
    return Submit(std::vector<SampleJob>{std::move(job)}, deadline);
  }
  RecordingSink& sink(RequestId id) { return *sinks_.at(id - 1); }

  void Tick() { batcher_->Tick(now_); }
  // One result of every worker and a tick, `count` times.
  void Steps(int count = 1);
  // Until nothing moves any more; dead workers stay dead.
  void RunToIdle();
  // `worker` is gone; a new one takes its place.
  FakeWorker& Replace(FakeWorker& worker);
  // The steps that `worker` was sent since the last call.
  std::vector<Step> NewSteps(FakeWorker& worker);
  // Those of the model.
  static int64_t CountSteps(const std::vector<Step>& steps, ModelId model);

  void ExpectTokens(RequestId id, const TextJob& job, uint32_t count, uint32_t index = 0);
  void ExpectPicture(RequestId id, const PictureJob& job, uint32_t index = 0);

  void TearDown() override;

  BatcherOptions options_;
  uint32_t pages_ = 64;  // of one byte each
  std::string tenant_;   // of what is submitted
  int32_t priority_ = 0;
  ModelId text_model_ = kText;
  uint32_t variants_ = 1;  // of the pictures' weights
  absl::Duration change_;  // what another variant takes
  absl::Time now_ = absl::UnixEpoch() + absl::Seconds(100);
  BatcherObserver observer_;
  int wakes_ = 0;
  std::unique_ptr<Batcher> batcher_;
  std::vector<std::shared_ptr<FakeWorker>> workers_;  // also the dead
  std::vector<std::shared_ptr<RecordingSink>> sinks_;
  std::map<FakeWorker*, size_t> steps_read_;
};

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_BATCHER_TESTING_BATCHER_FIXTURE_H_
