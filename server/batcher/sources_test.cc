// Texts with a source (ERNIE-ViLG): pictures painted by tokens, and captions of pictures.
#include <algorithm>
#include <memory>
#include <optional>
#include <set>
#include <string>

#include "server/batcher/testing/batcher_fixture.h"

namespace hanmo::testing {
namespace {

class SourcesTest : public BatcherTest {
 protected:
  SourcesTest() { options_.prefix_cache_bytes = 64; }

  FakeWorker& worker() { return *workers_.back(); }

  // Texts have three quarters of the steps while there are pictures.
  void StartWithShares(uint32_t pages = 64) {
    options_.policy.text_share = 0.75;
    options_.steps_in_flight = 1;
    pages_ = pages;
    Start();
  }

  // `source` tokens, those that fill the last page, and the one that begins the target.
  static TextJob WithSource(uint32_t source, uint32_t max_tokens, uint64_t seed) {
    const uint32_t padded = (source + kPageTokens - 1) / kPageTokens * kPageTokens;
    TextJob job = Text(padded + 1, max_tokens, seed);
    job.source_tokens = source;
    return job;
  }
  static TextJob Painting(uint32_t source, uint32_t tokens, uint64_t seed = 1) {
    TextJob job = WithSource(source, tokens, seed);
    job.paint_width = job.paint_height = 32;
    return job;
  }
  static TextJob Caption(const std::string& picture, uint32_t max_tokens, uint64_t seed = 1) {
    TextJob job = WithSource(16, max_tokens, seed);
    job.picture = {32, 32, std::make_shared<const std::string>(picture)};
    return job;
  }

  static TextJob Scored(TextJob job) {
    job.score_prompt = {5, 6};
    return job;
  }

  void ExpectPainted(RequestId id, const TextJob& job, uint32_t index = 0) {
    EXPECT_EQ(sink(id).outputs[index].picture, PictureOf(job));
    const bool scored = !job.score_prompt.empty();
    EXPECT_EQ(sink(id).outputs[index].score, scored ? std::optional(ScoreOf(job)) : std::nullopt);
    EXPECT_EQ(sink(id).outputs[index].tokens.size(), 0u);
    ASSERT_TRUE(sink(id).outputs[index].end.has_value());
    EXPECT_EQ(sink(id).outputs[index].end->end, SampleEnd::kPainted);
  }

  static size_t StepsOf(const std::vector<Step>& steps, StepKind kind) {
    return std::count_if(steps.begin(), steps.end(),
                         [&](const Step& step) { return step.kind == kind; });
  }
};

TEST_F(SourcesTest, APictureIsPaintedByTokensAndDecoded) {
  Start();
  const TextJob job = Painting(6, 10);
  const RequestId id = Submit(job);
  RunToIdle();
  ExpectPainted(id, job);
  // One step of the source, which draws the first token, one for each other, one for the pixels.
  EXPECT_EQ(StepsOf(worker().steps(), StepKind::kText), 10u);
  EXPECT_EQ(StepsOf(worker().steps(), StepKind::kVaeDecode), 1u);
  EXPECT_EQ(sink(id).outputs[0].steps, (std::vector<uint32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  EXPECT_EQ(sink(id).usage.steps, 10u);
  EXPECT_EQ(sink(id).usage.pictures, 1u);
  EXPECT_EQ(sink(id).usage.completion_tokens, 0u);
}

TEST_F(SourcesTest, PaintedPicturesThatAskForAScoreGetOne) {
  pages_ = 64;
  Start();
  const TextJob scored = Scored(Painting(6, 10, 1)), plain = Painting(6, 10, 2);
  const RequestId id = Submit({scored, plain});
  RunToIdle();
  ExpectPainted(id, scored, 0);
  ExpectPainted(id, plain, 1);

  worker().ForgetScores();
  const RequestId unscored = Submit(scored);
  RunToIdle();
  EXPECT_EQ(sink(unscored).code(), absl::StatusCode::kInternal);
}

// One candidate costs its source and its own tokens, each other one its own tokens alone.
TEST_F(SourcesTest, CandidatesShareTheirSource) {
  pages_ = 64;
  Start();
  std::vector<SampleJob> jobs;
  for (uint64_t seed = 1; seed <= 8; ++seed) jobs.push_back(Painting(6, 10, seed));
  const RequestId id = Submit(jobs);
  Steps(4);
  uint32_t prefilled = 0;
  std::set<uint32_t> pages;
  for (const Step& step : worker().steps()) {
    for (const Row& row : step.rows) {
      prefilled += row.prefill_tokens;
      pages.insert(row.new_pages.begin(), row.new_pages.end());
    }
  }
  EXPECT_EQ(worker().samples(), 8u);
  // The source's two pages once, and three for the target of each.
  EXPECT_EQ(pages.size(), 2u + 8 * 3);
  // The source's two pages and the first target token once, then that token for each other.
  EXPECT_EQ(prefilled, 9u + 7u);
  EXPECT_EQ(worker().shared_tokens(), 7u * 8);
  RunToIdle();
  for (uint32_t i = 0; i < 8; ++i) ExpectPainted(id, std::get<TextJob>(jobs[i]), i);
}

TEST_F(SourcesTest, TwoSourcesThatBeginAlikeShareNothing) {
  Start();
  const TextJob first = Painting(8, 3);
  TextJob second = Painting(8, 3);
  second.prompt[7] = 99;  // in the second page: yet what the first page holds depends on it
  TextJob third = Painting(7, 3);
  const RequestId a = Submit(first), b = Submit(second), c = Submit(third);
  RunToIdle();
  ExpectPainted(a, first);
  ExpectPainted(b, second);
  ExpectPainted(c, third);
  EXPECT_EQ(worker().shared_tokens(), 0u);
}

TEST_F(SourcesTest, PagesOfAPaintedPictureAreNotShared) {
  pages_ = 64;
  Start();
  const TextJob job = Painting(4, 12);
  const RequestId first = Submit(job);
  RunToIdle();
  // The very same picture again: what it finds is the source.
  const RequestId again = Submit(job);
  RunToIdle();
  ExpectPainted(first, job);
  ExpectPainted(again, job);
  EXPECT_EQ(worker().shared_tokens(), 4u);
}

TEST_F(SourcesTest, ACaptionReadsItsPictureFirst) {
  Start();
  const TextJob job = Caption("dawn", 5);
  const RequestId id = Submit(job);
  RunToIdle();
  ExpectTokens(id, job, 5);
  ASSERT_FALSE(worker().steps().empty());
  EXPECT_EQ(worker().steps().front().kind, StepKind::kPictureEncode);
  EXPECT_EQ(sink(id).usage.completion_tokens, 5u);
}

// That step may be cut into slices, between which the worker runs texts.
TEST_F(SourcesTest, ACaptionIsNotBegunBeforeItsPictureIsRead) {
  Start();
  const TextJob job = Caption("dawn", 5);
  const RequestId id = Submit(job);
  Tick();
  ASSERT_EQ(worker().steps().size(), 1u);
  EXPECT_EQ(worker().steps()[0].kind, StepKind::kPictureEncode);
  RunToIdle();
  ExpectTokens(id, job, 5);
}

TEST_F(SourcesTest, CaptionsOfOnePictureReadItOnce) {
  pages_ = 64;
  Start();
  const RequestId id = Submit({Caption("dawn", 5, 1), Caption("dawn", 5, 2)});
  const RequestId other = Submit(Caption("dusk", 5, 1));
  RunToIdle();
  EXPECT_EQ(sink(id).code(), absl::StatusCode::kOk);
  EXPECT_EQ(sink(other).code(), absl::StatusCode::kOk);
  size_t read = 0;
  for (const Step& step : worker().steps()) {
    if (step.kind == StepKind::kPictureEncode) read += step.rows.size();
  }
  EXPECT_EQ(read, 2u);
}

TEST_F(SourcesTest, ASourceIsNotCutByTheBudgetOfPrompts) {
  options_.prefill_chunk_tokens = 8;
  pages_ = 64;
  Start();
  const TextJob long_source = Painting(30, 3), another = Painting(29, 3, 2);
  const TextJob plain = Text(20, 3, 3);
  const RequestId a = Submit(long_source), b = Submit(another), c = Submit(plain);
  RunToIdle();
  ExpectPainted(a, long_source);
  ExpectPainted(b, another);
  ExpectTokens(c, plain, 3);
  // One such source at a time.
  for (const Step& step : worker().steps()) {
    uint32_t prefilled = 0;
    for (const Row& row : step.rows) prefilled += row.prefill_tokens;
    EXPECT_LE(prefilled, 33u);
  }
}

TEST_F(SourcesTest, APictureGoesOnAfterADeathAndIsDecodedFromWhatItHas) {
  Start();
  const TextJob job = Painting(6, 10);
  const RequestId id = Submit(job);
  Steps(5);
  Replace(worker());
  RunToIdle();
  ExpectPainted(id, job);
  EXPECT_EQ(sink(id).usage.steps, 10u);

  const RequestId late = Submit(job);
  Steps(11);  // all tokens are known, the pixels are not
  ASSERT_EQ(sink(late).outputs[0].steps.size(), 10u);
  ASSERT_FALSE(sink(late).outputs[0].end.has_value());
  Replace(worker());
  RunToIdle();
  ExpectPainted(late, job);
  // Nothing was run again for it.
  EXPECT_EQ(StepsOf(worker().steps(), StepKind::kText), 0u);
}

// It is no text that somebody reads: texts of another model go on beside it as beside any picture.
TEST_F(SourcesTest, APictureBesideTextsOfAnotherModelHasTheShareOfPictures) {
  StartWithShares();
  const TextJob painting = Painting(6, 40);
  const RequestId picture = Submit(painting);
  Steps(2);
  text_model_ = kOtherText;
  const TextJob text = Text(2, 100);
  const RequestId written = Submit(text);
  Steps(1);
  NewSteps(worker());
  Steps(40);
  const std::vector<Step> steps = NewSteps(worker());
  EXPECT_EQ(CountSteps(steps, kText), 10);
  EXPECT_EQ(CountSteps(steps, kOtherText), 30);
  RunToIdle();
  ExpectPainted(picture, painting);
  ExpectTokens(written, text, 100);
}

// Nor does it wait for the turns of captions that its own model writes.
TEST_F(SourcesTest, APictureBesideCaptionsHasTheShareOfPictures) {
  StartWithShares();
  const TextJob painting = Painting(6, 40), caption = Caption("blue", 100);
  const RequestId picture = Submit(painting), described = Submit(caption);
  Steps(4);
  text_model_ = kOtherText;
  const TextJob text = Text(2, 200);
  const RequestId written = Submit(text);
  Steps(1);
  NewSteps(worker());
  Steps(40);
  const std::vector<Step> steps = NewSteps(worker());
  // A quarter for the picture, with the caption along; of the rest each of the two texts has half.
  EXPECT_NEAR(CountSteps(steps, kText), 10 + 15, 1);
  EXPECT_NEAR(CountSteps(steps, kOtherText), 15, 1);
  RunToIdle();
  ExpectPainted(picture, painting);
  ExpectTokens(described, caption, 100);
  ExpectTokens(written, text, 200);
}

TEST_F(SourcesTest, AnUrgentPictureDoesNotTakeTheTurnsOfTexts) {
  StartWithShares();
  const TextJob painting = Painting(6, 40);
  Submit(painting);  // what it takes is known
  RunToIdle();
  const TextJob caption = Caption("blue", 100), text = Text(2, 200);
  const RequestId described = Submit(caption);
  Steps(4);
  text_model_ = kOtherText;
  const RequestId written = Submit(text);
  Steps(2);
  text_model_ = kText;
  const RequestId picture = Submit(painting, absl::Milliseconds(450));
  NewSteps(worker());
  for (int i = 0; i < 40; ++i) {
    now_ += absl::Milliseconds(10);
    Steps(1);
  }
  const std::vector<Step> steps = NewSteps(worker());
  EXPECT_NEAR(CountSteps(steps, kOtherText), 15, 2);
  RunToIdle();
  EXPECT_EQ(sink(picture).code(), absl::StatusCode::kOk);
  ExpectTokens(described, caption, 100);
  ExpectTokens(written, text, 200);
}

// Captions that go before it by rank do not fill the steps that are its share.
TEST_F(SourcesTest, AStepOfPicturesTakesThePictureAlong) {
  options_.max_running_samples = 1000;
  StartWithShares(4000);
  for (int i = 0; i < 70; ++i) Submit(Caption("blue", 150));  // more than a step takes
  Steps(20);
  const TextJob painting = Painting(6, 100);
  const RequestId picture = Submit(painting);
  text_model_ = kOtherText;
  Submit(Text(2, 400));
  Steps(20);
  const size_t before = sink(picture).outputs[0].steps.size();
  Steps(60);
  EXPECT_GE(sink(picture).outputs[0].steps.size(), before + 12);
  RunToIdle();
  ExpectPainted(picture, painting);
}

TEST_F(SourcesTest, ADeathInTheDecodeChangesNoScore) {
  Start();
  const TextJob job = Scored(Painting(6, 10));
  const RequestId id = Submit(job);
  Steps(11);
  ASSERT_EQ(StepsOf(worker().steps(), StepKind::kVaeDecode), 1u);
  ASSERT_FALSE(sink(id).outputs[0].end.has_value());
  Replace(worker());
  RunToIdle();
  ExpectPainted(id, job);
  EXPECT_EQ(sink(id).usage.deaths, 1u);
}

TEST_F(SourcesTest, APictureTakesItsPagesAtOnceAndGivesThemBack) {
  pages_ = 8;  // one picture of 2 + 3 pages and no second
  Start();
  const TextJob one = Painting(6, 12, 1), two = Painting(7, 12, 2);
  const RequestId a = Submit(one), b = Submit(two);
  RunToIdle();
  ExpectPainted(a, one);
  ExpectPainted(b, two);
  EXPECT_EQ(worker().samples(), 0u);
}

}  // namespace
}  // namespace hanmo::testing
