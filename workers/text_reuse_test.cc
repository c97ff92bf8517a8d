// Work saved on texts changes none: shared prefixes and guessed tokens give the tokens and log
// probabilities of a lone run without them, to the bit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <string>

#include "workers/testing/run_samples.h"
#include "workers/torch_executor.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using testing::WriteOptions;
using testing::WriteTogether;
using testing::WrittenText;

constexpr uint32_t kVocabulary = 258;
constexpr uint32_t kContext = 96;

class TextReuseTest : public ::testing::TestWithParam<std::string> {
 protected:
  TextReuseTest() : executor_(*ComputeDevice::Open("cpu")) {
    SetComputeThreads(1);
    LoadCommand load;
    load.path = "tests/goldens/gpt2/wenzhong";
    load.dtype = GetParam();
    EXPECT_TRUE(executor_.Load(load).ok());
  }

  uint32_t Draw(uint32_t low, uint32_t high) {
    return std::uniform_int_distribution<uint32_t>(low, high)(random_);
  }
  float DrawFloat(float low, float high) {
    return std::uniform_real_distribution<float>(low, high)(random_);
  }

  // Of few different tokens, or of runs that repeat.
  std::vector<uint32_t> RandomPrompt(uint32_t tokens) {
    std::vector<uint32_t> prompt;
    const uint32_t period = Draw(1, 20), words = Draw(2, kVocabulary - 1);
    for (uint32_t i = 0; i < tokens; ++i) {
      prompt.push_back(i < period ? Draw(1, words) : prompt[i - period]);
    }
    return prompt;
  }

  TextJob RandomJob() {
    TextJob job;
    job.prompt = RandomPrompt(Draw(1, 60));
    job.max_tokens = Draw(1, kContext - job.prompt.size());
    TokenSampling& sampling = job.sampling;
    sampling.seed = random_();
    sampling.temperature = Draw(0, 1) == 0 ? 0.0f : DrawFloat(0.05f, 1.2f);
    if (Draw(0, 2) == 0) sampling.top_k = Draw(1, 8);
    if (Draw(0, 2) == 0) sampling.top_p = DrawFloat(0.1f, 1);
    if (Draw(0, 3) == 0) sampling.min_p = DrawFloat(0, 0.3f);
    if (Draw(0, 2) == 0) sampling.repetition_penalty = DrawFloat(0.8f, 1.3f);
    if (Draw(0, 3) == 0) sampling.presence_penalty = DrawFloat(-1, 1);
    if (Draw(0, 3) == 0) sampling.frequency_penalty = DrawFloat(-1, 0.5f);
    if (Draw(0, 1) == 0) sampling.logprobs = Draw(0, 3);
    if (Draw(0, 3) == 0) sampling.logit_bias[Draw(0, kVocabulary - 1)] = DrawFloat(-5, 5);
    for (uint32_t i = Draw(0, 4); i > 0; --i) job.stop_token_ids.push_back(Draw(0, 257));
    if (Draw(0, 1) == 0) sampling.eos_token_ids = job.stop_token_ids;
    sampling.min_tokens = Draw(0, 10);
    return job;
  }

  static void ExpectSame(const WrittenText& got, const WrittenText& want) {
    ASSERT_EQ(got.status, want.status);
    ASSERT_EQ(got.tokens.size(), want.tokens.size());
    for (size_t t = 0; t < want.tokens.size(); ++t) {
      ASSERT_EQ(got.tokens[t].id, want.tokens[t].id) << "token " << t;
      ASSERT_EQ(got.tokens[t].logprob, want.tokens[t].logprob) << "token " << t;
      ASSERT_EQ(got.tokens[t].top.size(), want.tokens[t].top.size());
      for (size_t i = 0; i < want.tokens[t].top.size(); ++i) {
        ASSERT_EQ(got.tokens[t].top[i].id, want.tokens[t].top[i].id);
        ASSERT_EQ(got.tokens[t].top[i].logprob, want.tokens[t].top[i].logprob);
      }
    }
  }

  std::mt19937 random_{1};
  TorchExecutor executor_;
};

TEST_P(TextReuseTest, GuessesChangeNoToken) {
  uint32_t drafted = 0, right = 0, rows = 0, tokens = 0;
  for (int round = 0; round < 40; ++round) {
    std::vector<TextJob> jobs;
    for (uint32_t i = Draw(1, 4); i > 0; --i) jobs.push_back(RandomJob());
    const WriteOptions options = {.chunk = Draw(1, 64), .draft_tokens = Draw(1, 16)};
    const std::vector<WrittenText> together = WriteTogether(executor_, 0, jobs, options);
    for (size_t i = 0; i < jobs.size(); ++i) {
      const WrittenText alone = WriteTogether(executor_, 0, {jobs[i]})[0];
      ASSERT_EQ(alone.drafted, 0u);
      ASSERT_NO_FATAL_FAILURE(ExpectSame(together[i], alone)) << "round " << round;
      drafted += together[i].drafted;
      right += alone.rows - together[i].rows;
      rows += together[i].rows;
      tokens += alone.tokens.size();
    }
  }
  // Or nothing was put to the proof.
  EXPECT_GT(right, tokens / 10) << rows << " rows";
  EXPECT_GT(drafted, right + 100);
}

TEST_P(TextReuseTest, ASharedPrefixChangesNoToken) {
  for (int round = 0; round < 30; ++round) {
    TextJob first = RandomJob();
    first.prompt = RandomPrompt(Draw(17, 60));
    first.max_tokens = Draw(1, kContext - first.prompt.size());
    first.stop_token_ids.clear();
    const WriteOptions options = {.chunk = Draw(1, 64), .draft_tokens = Draw(0, 8)};
    const WrittenText writer = WriteTogether(executor_, 0, {first}, options)[0];
    // What it wrote can be shared as well as what it read: all but the last token was run.
    std::vector<uint32_t> known = first.prompt;
    for (const Token& token : writer.tokens) known.push_back(token.id);
    const uint32_t pages = Draw(1, static_cast<uint32_t>(known.size() - 1) / 16);
    const uint32_t cached = 16 * pages;

    std::vector<TextJob> jobs;
    WriteOptions warm = {.chunk = Draw(1, 64), .draft_tokens = Draw(0, 8), .own_page = 100};
    warm.shared_pages.resize(pages);
    std::iota(warm.shared_pages.begin(), warm.shared_pages.end(), 0);
    for (uint32_t i = Draw(1, 4); i > 0; --i) {
      TextJob job = RandomJob();
      const uint32_t shared = Draw(cached, known.size());
      job.prompt.assign(known.begin(), known.begin() + shared);
      // One at least must be run.
      for (uint32_t own = Draw(shared == cached ? 1 : 0, 10); own > 0; --own) {
        job.prompt.push_back(Draw(0, kVocabulary - 1));
      }
      if (job.prompt.size() >= kContext) job.prompt.resize(kContext - 1);
      job.max_tokens = Draw(1, kContext - job.prompt.size());
      jobs.push_back(job);
      warm.resumes.push_back({{}, "", cached});
    }
    const std::vector<WrittenText> shared = WriteTogether(executor_, 0, jobs, warm);
    // Written into pages of their own, elsewhere.
    for (size_t i = 0; i < jobs.size(); ++i) {
      const WrittenText cold = WriteTogether(executor_, 0, {jobs[i]}, {.own_page = 200})[0];
      ASSERT_NO_FATAL_FAILURE(ExpectSame(shared[i], cold)) << "round " << round;
    }
    // Nobody wrote into the shared pages: who reads them again finds the same.
    const std::vector<WrittenText> again = WriteTogether(executor_, 0, jobs, warm);
    for (size_t i = 0; i < jobs.size(); ++i) {
      ASSERT_NO_FATAL_FAILURE(ExpectSame(again[i], shared[i])) << "round " << round;
    }
  }
}

TEST_P(TextReuseTest, RefusesCachedTokensThatCannotBe) {
  TextJob job;
  job.prompt = RandomPrompt(40);
  job.max_tokens = 1;
  for (uint32_t cached : {1u, 15u, 48u, 0xffffffffu}) {
    const WrittenText text = WriteTogether(executor_, 0, {job}, {.resumes = {{{}, "", cached}}})[0];
    EXPECT_EQ(text.status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(text.status.message()), HasSubstr("cached_tokens"));
  }
  job.prompt.resize(32);
  EXPECT_FALSE(WriteTogether(executor_, 0, {job}, {.resumes = {{{}, "", 32}}})[0].status.ok());
  // The pages must be there, too.
  executor_.Begin(1, 0, job, {{}, "", 16});
  const StepResult result = executor_.Run({1, 0, StepKind::kText, {{1, 16, {0}, false}}});
  EXPECT_THAT(std::string(result.rows[0].status.message()), HasSubstr("new_pages"));
}

INSTANTIATE_TEST_SUITE_P(Types, TextReuseTest, ::testing::Values("float32", "bfloat16"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace hanmo
