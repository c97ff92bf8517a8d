// Guided texts through the executor, with the demo model: they match, whatever runs beside them,
// wherever they are taken up again, and however many tokens are guessed.
#include "workers/text_guide.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <set>
#include <string>

#include "server/text/tokenizer.h"
#include "workers/testing/run_samples.h"
#include "workers/torch_executor.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using testing::WriteOptions;
using testing::WriteTogether;
using testing::WrittenText;

constexpr char kModel[] = "models/wenzhong-gpt2-tiny";
constexpr uint32_t kEos = 4386;
constexpr char kDate[] = "20[0-9]{2}-[01][0-9]-[0-3][0-9]";

class TextGuideTest : public ::testing::Test {
 protected:
  TextGuideTest()
      : executor_(*ComputeDevice::Open("cpu")), tokenizer_(Tokenizer::Load(kModel).value()) {
    SetComputeThreads(1);
    LoadCommand load;
    load.path = kModel;
    load.dtype = "float32";
    EXPECT_TRUE(executor_.Load(load).ok());
  }

  static TextJob Job(const std::string& guide, uint64_t seed) {
    TextJob job;
    job.prompt = {17, 301, 44, 9};
    job.sampling.seed = seed;
    job.sampling.logprobs = 1;
    job.stop_token_ids = {kEos};
    job.sampling.eos_token_ids = {kEos};
    job.max_tokens = 60;
    if (!guide.empty()) job.guide = std::make_shared<const std::string>(guide);
    return job;
  }
  static std::vector<uint32_t> Ids(const WrittenText& text) {
    std::vector<uint32_t> ids;
    for (const Token& token : text.tokens) ids.push_back(token.id);
    return ids;
  }
  std::string Words(const WrittenText& text) const {
    return tokenizer_->Decode(Ids(text), true).value();
  }
  WrittenText Write(const TextJob& job, const WriteOptions& options = {}) {
    return WriteTogether(executor_, 0, {job}, options)[0];
  }
  static void ExpectSame(const WrittenText& got, const WrittenText& want) {
    ASSERT_EQ(got.status, want.status);
    ASSERT_EQ(Ids(got), Ids(want));
    for (size_t t = 0; t < want.tokens.size(); ++t) {
      ASSERT_EQ(got.tokens[t].logprob, want.tokens[t].logprob);
    }
  }

  TorchExecutor executor_;
  const std::unique_ptr<const Tokenizer> tokenizer_;
};

TEST_F(TextGuideTest, TheTextMatchesAndEnds) {
  std::set<std::string> texts;
  for (uint64_t seed = 0; seed < 10; ++seed) {
    const WrittenText text = Write(Job(RegexGuide(kDate), seed));
    ASSERT_TRUE(text.status.ok()) << text.status;
    EXPECT_TRUE(std::regex_match(Words(text), std::regex(kDate))) << Words(text);
    EXPECT_EQ(text.tokens.back().id, kEos);
    texts.insert(Words(text));
  }
  EXPECT_GT(texts.size(), 5u);
}

TEST_F(TextGuideTest, LogProbabilitiesAreThoseOfTheModel) {
  const TextJob guided = Job(RegexGuide(kDate), 1);
  const WrittenText text = Write(guided);
  TextJob free = Job("", 1);
  for (const Token& token : text.tokens) {
    free.max_tokens = 1;
    const WrittenText next = Write(free);
    EXPECT_EQ(next.tokens[0].top[0].id, token.top[0].id);
    EXPECT_NEAR(next.tokens[0].top[0].logprob, token.top[0].logprob, 1e-4);
    free.prompt.push_back(token.id);
  }
}

TEST_F(TextGuideTest, CompanyChangesNothing) {
  const std::vector<TextJob> jobs = {
      Job(RegexGuide(kDate), 3), Job("", 4), Job(JsonSchemaGuide(R"({"enum": ["山", [1, 2]]})"), 5),
      Job(LarkGuide("start: \"(\" start \")\" | \"水\""), 6), Job("", 7)};
  const std::vector<WrittenText> together = WriteTogether(executor_, 0, jobs);
  for (size_t i = 0; i < jobs.size(); ++i) {
    ASSERT_NO_FATAL_FAILURE(ExpectSame(together[i], Write(jobs[i]))) << i;
  }
}

TEST_F(TextGuideTest, GoesOnFromTheEmittedTokens) {
  const TextJob job = Job(RegexGuide(kDate), 8);
  const std::vector<uint32_t> whole = Ids(Write(job));
  for (size_t emitted = 1; emitted < whole.size(); ++emitted) {
    const Resume resume = {{whole.begin(), whole.begin() + emitted}, ""};
    EXPECT_EQ(Ids(Write(job, {.chunk = 8, .resumes = {resume}, .shared_pages = {}})),
              std::vector<uint32_t>(whole.begin() + emitted, whole.end()));
  }
}

TEST_F(TextGuideTest, GuessesChangeNoToken) {
  uint32_t right = 0;
  for (uint64_t seed = 0; seed < 12; ++seed) {
    TextJob job = Job(seed % 2 == 0 ? RegexGuide("(山水，){3,8}人")
                                    : JsonSchemaGuide(R"({"type": "array", "minItems": 5,
                                          "items": {"const": {"name": "山水"}}})"),
                      seed);
    const WrittenText plain = Write(job);
    const WrittenText guessed = Write(
        job, {.draft_tokens = 1 + static_cast<uint32_t>(seed), .resumes = {}, .shared_pages = {}});
    ASSERT_NO_FATAL_FAILURE(ExpectSame(guessed, plain)) << seed;
    right += plain.rows - guessed.rows;
  }
  EXPECT_GT(right, 50u);
}

TEST_F(TextGuideTest, TheEndIsAllowedExactlyWhereTheTextMatches) {
  // The model ends at once wherever it may.
  TextJob eager = Job(RegexGuide("[0-9]{3,}"), 9);
  eager.sampling.logit_bias[kEos] = 100;
  EXPECT_EQ(Words(Write(eager)).size(), 3u);
  // Also where only the form says so.
  TextJob reluctant = Job(RegexGuide("[0-9]{3,5}"), 9);
  reluctant.sampling.logit_bias[kEos] = -100;
  const WrittenText text = Write(reluctant);
  EXPECT_EQ(Words(text).size(), 5u);
  EXPECT_EQ(text.tokens.back().id, kEos);
}

TEST_F(TextGuideTest, MinTokensHoldsOffTheEndWhileTheFormGoesOn) {
  TextJob job = Job(RegexGuide("[0-9]+"), 10);
  job.sampling.logit_bias[kEos] = 100;
  EXPECT_EQ(Write(job).tokens.size(), 2u);
  job.sampling.min_tokens = 7;
  EXPECT_EQ(Write(job).tokens.size(), 8u);
  TextJob full = Job(RegexGuide("山"), 10);
  full.sampling.min_tokens = 50;
  EXPECT_EQ(Words(Write(full)), "山");
}

TEST_F(TextGuideTest, AStopIdEndsLikeTheEndOfText) {
  TextJob job = Job(RegexGuide("[0-9]{4}"), 11);
  const uint32_t comma = tokenizer_->TokenId(",").value();
  job.stop_token_ids = {comma};
  job.sampling.eos_token_ids = {comma};
  const WrittenText text = Write(job);
  EXPECT_EQ(text.tokens.back().id, comma);
  EXPECT_EQ(Words(text).size(), 5u);
}

TEST_F(TextGuideTest, ABadGuideEndsItsTextAlone) {
  const std::vector<TextJob> jobs = {Job("", 12), Job(RegexGuide("("), 12), Job("what", 12)};
  const std::vector<WrittenText> texts = WriteTogether(executor_, 0, jobs);
  ExpectSame(texts[0], Write(jobs[0]));
  for (const size_t i : {1, 2}) {
    EXPECT_EQ(texts[i].status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(texts[i].status.message()), ::testing::StartsWith("guide: "));
  }
}

TEST_F(TextGuideTest, ATextMayBeDroppedWhileItsGuideIsCompiled) {
  for (int round = 0; round < 20; ++round) {
    executor_.Begin(1, 0, Job(RegexGuide("(\\p{L}|[0-9]){1,500}"), 1), {});
    executor_.Drop({1});
  }
  executor_.Begin(1, 0, Job(RegexGuide("(\\p{L}|[0-9]){1,500}"), 1), {});
  executor_.Unload(0);
}

TEST_F(TextGuideTest, AModelWithoutTokenizerSaysSo) {
  LoadCommand load;
  load.model = 1;
  load.path = "tests/goldens/gpt2/wenzhong";
  ASSERT_TRUE(executor_.Load(load).ok());
  TextJob job = Job(RegexGuide("a"), 1);
  job.prompt = {1, 2};
  const WrittenText text = WriteTogether(executor_, 1, {job})[0];
  EXPECT_EQ(text.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(text.status.message()), HasSubstr("guide: "));
}

}  // namespace
}  // namespace hanmo
