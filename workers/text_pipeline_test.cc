// Texts through the executor: company, chunks, resuming, stopping, and bad rows beside good ones.
#include "workers/text_pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "workers/testing/run_samples.h"
#include "workers/torch_executor.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using testing::WriteTogether;
using testing::WrittenText;

class TextPipelineTest : public ::testing::Test {
 protected:
  TextPipelineTest() : executor_(*ComputeDevice::Open("cpu")) {
    SetComputeThreads(1);
    LoadCommand load;
    load.path = "tests/goldens/gpt2/wenzhong";
    absl::StatusOr<LoadedModel> loaded = executor_.Load(load);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    if (loaded.ok()) loaded_ = *loaded;
  }

  static TextJob Text(std::vector<uint32_t> prompt, uint64_t seed) {
    TextJob job;
    job.prompt = std::move(prompt);
    job.sampling.seed = seed;
    job.sampling.logprobs = 2;
    job.max_tokens = 20;
    return job;
  }
  static std::vector<uint32_t> LongPrompt(uint32_t tokens) {
    std::vector<uint32_t> prompt;
    for (uint32_t i = 0; i < tokens; ++i) prompt.push_back(1 + i * 7 % 250);
    return prompt;
  }
  static std::vector<uint32_t> Ids(const WrittenText& text) {
    std::vector<uint32_t> ids;
    for (const Token& token : text.tokens) ids.push_back(token.id);
    return ids;
  }
  RowResult RunRow(Row row) { return executor_.Run({1, 0, StepKind::kText, {row}}).rows[0]; }

  TorchExecutor executor_;
  LoadedModel loaded_;
};

TEST_F(TextPipelineTest, ReportsWhatTheModelCanDo) {
  EXPECT_EQ(loaded_.architecture, "GPT2LMHeadModel");
  EXPECT_EQ(loaded_.context_tokens, 96u);
  EXPECT_EQ(loaded_.vocabulary_size, 258u);
  EXPECT_EQ(loaded_.page_tokens, 16u);
  EXPECT_EQ(loaded_.pages, 64u * 6);
  EXPECT_GT(loaded_.page_bytes, 0u);
}

TEST_F(TextPipelineTest, ATextDependsNeitherOnItsCompanyNorOnItsChunks) {
  std::vector<TextJob> jobs = {Text({3}, 1), Text(LongPrompt(40), 2), Text({9, 8, 7}, 3),
                               Text(LongPrompt(17), 4)};
  jobs[0].sampling.temperature = 0;
  jobs[1].sampling.top_k = 12;
  jobs[2].sampling.repetition_penalty = 1.3f;
  jobs[3].sampling.top_p = 0.8f;
  const std::vector<WrittenText> together = WriteTogether(executor_, 0, jobs, {.chunk = 16});
  for (size_t i = 0; i < jobs.size(); ++i) {
    for (uint32_t chunk : {512, 5}) {
      const WrittenText alone = WriteTogether(executor_, 0, {jobs[i]}, {.chunk = chunk})[0];
      ASSERT_TRUE(alone.status.ok()) << alone.status;
      ASSERT_EQ(alone.tokens.size(), 20u);
      EXPECT_EQ(Ids(alone), Ids(together[i]));
      for (size_t t = 0; t < 20; ++t) {
        // Bit for bit, not only the same choice.
        EXPECT_EQ(alone.tokens[t].logprob, together[i].tokens[t].logprob);
        ASSERT_EQ(alone.tokens[t].top.size(), 2u);
      }
    }
  }
}

TEST_F(TextPipelineTest, GoesOnFromTheEmittedTokens) {
  const TextJob job = Text(LongPrompt(21), 5);
  const std::vector<uint32_t> whole = Ids(WriteTogether(executor_, 0, {job})[0]);
  for (size_t emitted : {1, 7, 19}) {
    const Resume resume = {{whole.begin(), whole.begin() + emitted}, ""};
    EXPECT_EQ(Ids(WriteTogether(executor_, 0, {job}, {.chunk = 8, .resumes = {resume}})[0]),
              std::vector<uint32_t>(whole.begin() + emitted, whole.end()));
  }
}

TEST_F(TextPipelineTest, ASampleThatEndedIsSkippedByTheStepsUnderWay) {
  TextJob job = Text({5, 6}, 6);
  const std::vector<uint32_t> free_run = Ids(WriteTogether(executor_, 0, {job})[0]);
  // Stop at the first token that was not there before.
  size_t stop = 1;
  while (std::find(free_run.begin(), free_run.begin() + stop, free_run[stop]) !=
         free_run.begin() + stop) {
    ++stop;
  }
  job.stop_token_ids = {free_run[stop]};
  EXPECT_EQ(Ids(WriteTogether(executor_, 0, {job})[0]).size(), stop + 1);

  job.max_tokens = 1;
  executor_.Begin(1, 0, job, {});
  EXPECT_EQ(RunRow({1, 2, {0}, false}).tokens.size(), 1u);
  const RowResult next = RunRow({1, 0, {}, false});
  EXPECT_TRUE(next.skipped);
  EXPECT_TRUE(next.tokens.empty());
}

TEST_F(TextPipelineTest, MinTokensHoldsOffTheEnd) {
  TextJob job = Text({5, 6}, 6);
  job.stop_token_ids = {Ids(WriteTogether(executor_, 0, {job})[0])[0]};
  EXPECT_EQ(WriteTogether(executor_, 0, {job})[0].tokens.size(), 1u);
  job.sampling.min_tokens = 3;
  EXPECT_GE(WriteTogether(executor_, 0, {job})[0].tokens.size(), 3u);
}

TEST_F(TextPipelineTest, ABadSampleFailsAloneAndNamesTheField) {
  const TextJob good = Text({1, 2, 3}, 7);
  std::vector<TextJob> jobs(6, good);
  jobs[1].prompt.clear();
  jobs[2].prompt = {1, 258};
  jobs[3].max_tokens = 94;
  jobs[4].max_tokens = 0;
  jobs[5].prompt = {0xffffffff};
  const std::vector<WrittenText> texts = WriteTogether(executor_, 0, jobs);
  const char* named[] = {"", "prompt", "258", "96", "max_tokens", "4294967295"};
  for (size_t i = 1; i < jobs.size(); ++i) {
    EXPECT_EQ(texts[i].status.code(), absl::StatusCode::kInvalidArgument) << i;
    EXPECT_THAT(std::string(texts[i].status.message()), HasSubstr(named[i]));
  }
  EXPECT_EQ(Ids(texts[0]), Ids(WriteTogether(executor_, 0, {good})[0]));
}

TEST_F(TextPipelineTest, RowsThatCannotRunFailAlone) {
  const TextJob job = Text({1, 2, 3}, 8);
  for (SampleHandle sample : {1, 2, 3, 4, 5}) executor_.Begin(sample, 0, job, {});
  const Step step = {1,
                     0,
                     StepKind::kText,
                     {{1, 3, {0}, false},
                      {2, 4, {1}, false},      // more than it has
                      {3, 3, {}, false},       // no page
                      {4, 3, {99999}, false},  // no such page
                      {1, 1, {}, false},       // twice in one step
                      {77, 1, {}, false}}};    // unknown
  const StepResult result = executor_.Run(step);
  ASSERT_TRUE(result.status.ok()) << result.status;
  ASSERT_EQ(result.rows.size(), 6u);
  EXPECT_EQ(result.rows[0].tokens.size(), 1u);
  const char* named[] = {"", "prefill_tokens", "new_pages", "new_pages", "twice", "unknown"};
  for (size_t i = 1; i < 6; ++i) {
    EXPECT_THAT(std::string(result.rows[i].status.message()), HasSubstr(named[i]));
  }
  EXPECT_FALSE(executor_.Run({2, 0, StepKind::kDenoise, {{5, 0, {}, false}}}).status.ok());
  EXPECT_EQ(RunRow({5, 3, {3}, false}).tokens.size(), 1u);
}

TEST_F(TextPipelineTest, RefusesKvBytesBelowOneContext) {
  LoadCommand load;
  load.model = 1;
  load.path = "tests/goldens/gpt2/wenzhong";
  load.kv_bytes = 100;
  EXPECT_EQ(executor_.Load(load).status().code(), absl::StatusCode::kResourceExhausted);
  load.kv_bytes = 10 * loaded_.page_bytes;
  EXPECT_EQ(executor_.Load(load)->pages, 10u);
  load.kv_bytes = 3 * loaded_.page_bytes;
  EXPECT_EQ(executor_.Load(load).status().code(), absl::StatusCode::kResourceExhausted);
  load.max_context_tokens = 40;
  EXPECT_EQ(executor_.Load(load)->context_tokens, 40u);
}

}  // namespace
}  // namespace hanmo
