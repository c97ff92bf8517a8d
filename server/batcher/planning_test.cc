#include <gmock/gmock.h>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class PlanningTest : public BatcherTest {
 protected:
  static std::vector<uint32_t> Prefills(const Step& step) {
    std::vector<uint32_t> tokens;
    for (const Row& row : step.rows) tokens.push_back(row.prefill_tokens);
    return tokens;
  }
};

TEST_F(PlanningTest, SendsTheNextStepBeforeTheResultOfTheFirst) {
  Start();
  Submit(Text(3, 5));
  Tick();
  EXPECT_EQ(workers_[0]->steps_waiting(), 2u);
  Tick();
  EXPECT_EQ(workers_[0]->steps_waiting(), 2u);
  Steps(1);
  EXPECT_EQ(workers_[0]->steps_waiting(), 2u);
  RunToIdle();
  // One prefill and four tokens: nothing beyond max_tokens was sent.
  EXPECT_THAT(workers_[0]->steps(), SizeIs(5));
}

TEST_F(PlanningTest, TextsOfDifferentLengthsShareSteps) {
  Start();
  const TextJob a = Text(3, 6, 1), b = Text(9, 3, 2);
  const RequestId first = Submit(a);
  Tick();
  const RequestId second = Submit(b);
  RunToIdle();
  ExpectTokens(first, a, 6);
  ExpectTokens(second, b, 3);
  EXPECT_EQ(sink(first).outputs[0].end->end, SampleEnd::kLength);
  // The second joined beside decode rows: no step of its own.
  EXPECT_THAT(workers_[0]->steps(), SizeIs(6));
}

TEST_F(PlanningTest, CutsPromptsIntoChunks) {
  options_.policy.policy = Policy::kFcfs;
  options_.prefill_chunk_tokens = 8;
  options_.steps_in_flight = 1;
  Start();
  const TextJob running = Text(2, 20, 1);
  Submit(running);
  Steps(2);
  NewSteps(*workers_[0]);
  const TextJob one = Text(13, 2, 2), two = Text(5, 2, 3);
  const RequestId first = Submit(one), second = Submit(two);
  Steps(4);
  const auto steps = NewSteps(*workers_[0]);
  // Decode rows go first, then chunks of eight prompt tokens in order of arrival.
  EXPECT_THAT(Prefills(steps[0]), ElementsAre(0, 8));
  EXPECT_THAT(Prefills(steps[1]), ElementsAre(0, 5, 3));
  EXPECT_THAT(Prefills(steps[2]), ElementsAre(0, 0, 2));
  RunToIdle();
  ExpectTokens(first, one, 2);
  ExpectTokens(second, two, 2);
  ExpectTokens(1, running, 20);
}

TEST_F(PlanningTest, APictureIsEncodedDenoisedAndDecoded) {
  Start();
  const PictureJob job = Picture(4);
  const RequestId id = Submit(job);
  RunToIdle();
  std::vector<StepKind> kinds;
  for (const Step& step : workers_[0]->steps()) kinds.push_back(step.kind);
  EXPECT_THAT(kinds, ElementsAre(StepKind::kTextEncode, StepKind::kDenoise, StepKind::kDenoise,
                                 StepKind::kDenoise, StepKind::kDenoise, StepKind::kVaeDecode));
  ExpectPicture(id, job);
  EXPECT_THAT(sink(id).outputs[0].steps, ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(sink(id).outputs[0].end->end, SampleEnd::kPainted);
  EXPECT_EQ(sink(id).usage.steps, 4u);
  EXPECT_EQ(sink(id).usage.pictures, 1u);
}

TEST_F(PlanningTest, PicturesThatAskForAScoreGetOne) {
  Start();
  PictureJob scored = Picture(3, 1);
  scored.score_prompt = {5, 6};
  const PictureJob plain = Picture(3, 2);
  const RequestId id = Submit({scored, plain});
  RunToIdle();
  ExpectPicture(id, scored, 0);
  ExpectPicture(id, plain, 1);
  EXPECT_TRUE(sink(id).outputs[0].score.has_value());
}

TEST_F(PlanningTest, APictureWithoutTheScoreAskedForFailsItsRequest) {
  Start();
  workers_[0]->ForgetScores();
  PictureJob job = Picture(3);
  job.score_prompt = {5};
  const RequestId id = Submit(job);
  RunToIdle();
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kInternal);
  EXPECT_EQ(sink(id).usage.pictures, 0u);
}

TEST_F(PlanningTest, PicturesOfOneSizeShareStepsWhateverElseDiffers) {
  Start();
  const PictureJob a = Picture(8, 1), b = Picture(3, 2), other = Picture(3, 3, 128);
  const RequestId first = Submit({a, b});
  const RequestId second = Submit(other);
  RunToIdle();
  ExpectPicture(first, a, 0);
  ExpectPicture(first, b, 1);
  ExpectPicture(second, other);
  size_t denoise = 0;
  for (const Step& step : workers_[0]->steps()) denoise += step.kind == StepKind::kDenoise;
  EXPECT_EQ(denoise, 8u + 3u);
}

TEST_F(PlanningTest, TextsOfTwoModelsAreWrittenInTurns) {
  options_.steps_in_flight = 1;
  Start();
  Submit(Text(2, 20));
  text_model_ = kOtherText;
  Submit(Text(2, 20));
  Steps(10);
  std::vector<ModelId> models;
  for (const Step& step : workers_[0]->steps()) models.push_back(step.model);
  EXPECT_EQ(std::count(models.begin(), models.end(), kText), 5);
  EXPECT_EQ(std::adjacent_find(models.begin(), models.end()), models.end());
}

TEST_F(PlanningTest, AModelWithMoreTextsHasMoreTime) {
  options_.steps_in_flight = 1;
  Start();
  for (int i = 0; i < 3; ++i) Submit(Text(2, 60));
  text_model_ = kOtherText;
  Submit(Text(2, 60));
  Steps(8);
  NewSteps(*workers_[0]);
  Steps(20);
  EXPECT_EQ(CountSteps(NewSteps(*workers_[0]), kOtherText), 5);
}

// It has no claim to what it missed.
TEST_F(PlanningTest, TextsOfAModelThatHadNoneTakeTurnsFromThenOn) {
  options_.steps_in_flight = 1;
  Start();
  Submit(Text(2, 60));
  Steps(20);
  text_model_ = kOtherText;
  Submit(Text(2, 20));
  Steps(1);
  NewSteps(*workers_[0]);
  Steps(10);
  EXPECT_EQ(CountSteps(NewSteps(*workers_[0]), kOtherText), 5);
}

TEST_F(PlanningTest, WhoJoinsIsEncodedBeforeTheOthersGoOn) {
  options_.policy.policy = Policy::kFcfs;  // the one that runs goes first
  options_.steps_in_flight = 1;
  Start();
  Submit(Picture(20, 1));
  Steps(4);
  NewSteps(*workers_[0]);
  Submit(Picture(20, 2));
  Steps(3);
  std::vector<std::pair<StepKind, size_t>> steps;
  for (const Step& step : NewSteps(*workers_[0])) steps.emplace_back(step.kind, step.rows.size());
  EXPECT_THAT(steps, ElementsAre(std::make_pair(StepKind::kTextEncode, 1),
                                 std::make_pair(StepKind::kDenoise, 2),
                                 std::make_pair(StepKind::kDenoise, 2)));
}

TEST_F(PlanningTest, WhoIsDenoisedHoldsNoPlace) {
  options_.policy.policy = Policy::kFcfs;
  options_.steps_in_flight = 1;
  options_.max_picture_batch = 1;
  Start();
  PictureJob guided = Picture(2);
  guided.guidance = 5;
  Submit(guided);
  Submit(guided);
  RunToIdle();
  std::vector<StepKind> kinds;
  for (const Step& step : workers_[0]->steps()) kinds.push_back(step.kind);
  EXPECT_THAT(kinds, ElementsAre(StepKind::kTextEncode, StepKind::kDenoise, StepKind::kDenoise,
                                 StepKind::kTextEncode, StepKind::kVaeDecode, StepKind::kDenoise,
                                 StepKind::kDenoise, StepKind::kVaeDecode));
}

TEST_F(PlanningTest, BatchesHaveACap) {
  options_.max_picture_batch = 3;
  Start();
  for (int i = 0; i < 7; ++i) Submit(Picture(2, i));
  RunToIdle();
  for (const Step& step : workers_[0]->steps()) EXPECT_LE(step.rows.size(), 3u);
  EXPECT_EQ(workers_[0]->steps()[0].rows.size(), 3u);
}

TEST_F(PlanningTest, TextsAndPicturesTakeTurns) {
  options_.policy.text_share = 0.5;
  options_.steps_in_flight = 1;
  Start();
  Submit(Picture(20));
  Submit(Text(3, 20));
  Tick();
  Steps(12);
  const auto& steps = workers_[0]->steps();
  // After the prompts.
  for (size_t i = 3; i < steps.size(); ++i) {
    EXPECT_NE(steps[i].model, steps[i - 1].model) << "step " << i;
  }
}

TEST_F(PlanningTest, SavesAtTheInterval) {
  options_.save_interval_steps = 4;
  Start();
  Submit(Picture(12));
  RunToIdle();
  EXPECT_EQ(workers_[0]->saves(), 2u);  // after 4 and 8; after 12 comes the picture itself
}

TEST_F(PlanningTest, PreviewsAsOftenAsAsked) {
  Start();
  PictureJob job = Picture(9);
  job.preview_every_steps = 3;
  const RequestId id = Submit(job);
  RunToIdle();
  std::vector<uint32_t> asked;
  uint32_t step_number = 0;
  for (const Step& step : workers_[0]->steps()) {
    if (step.kind != StepKind::kDenoise) continue;
    ++step_number;
    if (step.rows[0].preview) asked.push_back(step_number);
  }
  EXPECT_THAT(asked, ElementsAre(3, 6));
  EXPECT_THAT(sink(id).previews, ElementsAre(3, 6));
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kOk);
}

TEST_F(PlanningTest, EndsAtStopIdsAndWhenTheSinkSaysSo) {
  Start();
  TextJob eos = Text(3, 9, 1), stop = Text(3, 9, 2);
  const uint32_t eos_id = TokenOf(eos, 2), stop_id = TokenOf(stop, 1);
  eos.stop_token_ids = eos.sampling.eos_token_ids = {eos_id};
  stop.stop_token_ids = {stop_id};
  const RequestId first = Submit(eos), second = Submit(stop), third = Submit(Text(3, 9, 3));
  sink(third).stop_after = 4;
  RunToIdle();
  ExpectTokens(first, eos, 3);
  EXPECT_EQ(sink(first).outputs[0].end->end, SampleEnd::kEos);
  EXPECT_EQ(sink(first).outputs[0].end->stop_id, eos_id);
  ExpectTokens(second, stop, 2);
  EXPECT_EQ(sink(second).outputs[0].end->end, SampleEnd::kStop);
  EXPECT_EQ(sink(second).outputs[0].end->stop_id, stop_id);
  ExpectTokens(third, Text(3, 9, 3), 4);
  EXPECT_EQ(sink(third).outputs[0].end->end, SampleEnd::kStop);
  EXPECT_EQ(workers_[0]->samples(), 0u);
}

TEST_F(PlanningTest, StaticBatchesAreOfEqualsAndClosed) {
  options_.policy.policy = Policy::kStatic;
  Start();
  const auto picture = [](uint32_t steps, uint64_t seed, float guidance = 1) {
    PictureJob job = Picture(steps, seed);
    job.guidance = guidance;
    return job;
  };
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    Submit(picture(4, seed));
    Submit(picture(6, 10 + seed));
    Submit(picture(4, 20 + seed, 5));
  }
  Steps(2);
  Submit(picture(4, 4));  // too late
  RunToIdle();
  std::vector<size_t> decoded;
  for (const Step& step : workers_[0]->steps()) {
    if (step.kind == StepKind::kVaeDecode) decoded.push_back(step.rows.size());
  }
  EXPECT_THAT(decoded, ::testing::ElementsAre(3, 3, 3, 1));
}

TEST_F(PlanningTest, IdleCostsNothing) {
  Start();
  Tick();
  EXPECT_THAT(workers_[0]->steps(), IsEmpty());
  EXPECT_TRUE(batcher_->idle());
}

}  // namespace
}  // namespace hanmo::testing
