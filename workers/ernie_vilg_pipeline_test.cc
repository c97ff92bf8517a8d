// Pictures painted by tokens and texts about pictures through the executor, against what
// transformers and diffusers recorded.
#include "workers/ernie_vilg_pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/models/testing/golden.h"
#include "workers/torch_executor.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

constexpr char kFolder[] = "tests/goldens/ernie_vilg/whole";
constexpr uint32_t kWords = 61, kCodes = 48, kTokens = 15, kWidth = 40, kHeight = 24;
constexpr uint32_t kSep = 3, kPad = 0, kBoi = 4, kBot = 5, kPage = 16;

// What became of one sample.
struct Outcome {
  absl::Status status;
  std::vector<uint32_t> ids;
  std::vector<float> logprobs;
  std::string rgb;
};

class ErnieVilgPipelineTest : public ::testing::Test {
 protected:
  ErnieVilgPipelineTest()
      : executor_(*ComputeDevice::Open("cpu")),
        golden_(absl::StrCat(kFolder, "/golden.safetensors")) {
    SetComputeThreads(1);
    LoadCommand load;
    load.path = kFolder;
    absl::StatusOr<LoadedModel> loaded = executor_.Load(load);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    if (loaded.ok()) loaded_ = *loaded;
  }

  std::vector<uint32_t> Ids(const std::string& name) {
    const at::Tensor ids = golden_.Get(name, at::kInt);
    return {ids.data_ptr<int32_t>(), ids.data_ptr<int32_t>() + ids.numel()};
  }
  std::string Bytes(const std::string& name) {
    const at::Tensor bytes = golden_.Get(name, at::kByte).contiguous();
    return {reinterpret_cast<const char*>(bytes.data_ptr<uint8_t>()),
            static_cast<size_t>(bytes.numel())};
  }

  // Greedy unless changed.
  TextJob Painting(const std::string& index) {
    TextJob job;
    job.prompt = Ids(absl::StrCat("paint.", index, ".source"));
    job.source_tokens = job.prompt.size();
    job.prompt.resize((job.prompt.size() + kPage - 1) / kPage * kPage, kPad);
    job.prompt.push_back(kBoi);
    job.max_tokens = kTokens;
    job.paint_width = kWidth;
    job.paint_height = kHeight;
    job.sampling.temperature = 0;
    job.sampling.logprobs = 2;
    return job;
  }
  TextJob Caption(const std::string& index) {
    TextJob job;
    job.prompt.assign(kTokens, kWords);  // placeholders
    job.prompt.resize(kPage, kPad);
    job.prompt.push_back(kBot);
    job.source_tokens = kTokens;
    job.max_tokens = 20;
    job.stop_token_ids = job.sampling.eos_token_ids = {kSep};
    job.sampling.temperature = 0;
    job.sampling.logprobs = 2;
    const std::string rgb = Bytes(absl::StrCat("write.", index, ".rgb"));
    job.picture = {kWidth, kHeight, std::make_shared<const std::string>(rgb)};
    return job;
  }
  static TextJob Drawn(TextJob job, uint64_t seed) {
    job.sampling.temperature = 1;
    job.sampling.seed = seed;
    return job;
  }

  // A sample on its way, as the batcher sees it.
  struct Runner {
    TextJob job;
    uint32_t known = 0, cached = 0, pages = 0;
    bool ended = false;
    Outcome outcome;
  };

  // All jobs in every step that they can share.
  std::vector<Outcome> RunTogether(const std::vector<TextJob>& jobs,
                                   std::vector<Resume> resumes = {}, uint32_t chunk = 512) {
    resumes.resize(jobs.size());
    std::vector<Runner> runners(jobs.size());
    next_page_ = 0;
    for (size_t i = 0; i < jobs.size(); ++i) {
      runners[i].job = jobs[i];
      runners[i].known = jobs[i].prompt.size() + resumes[i].emitted.size();
      runners[i].outcome.ids = resumes[i].emitted;
      runners[i].ended = resumes[i].emitted.size() == jobs[i].max_tokens;
      executor_.Begin(1 + i, 0, jobs[i], resumes[i]);
    }
    const auto step = [&](StepKind kind, const std::function<bool(Runner&)>& wanted) {
      Step next = {1, 0, kind, {}};
      for (size_t i = 0; i < jobs.size(); ++i) {
        if (!runners[i].outcome.status.ok() || !wanted(runners[i])) continue;
        next.rows.push_back(kind == StepKind::kText ? NextRow(runners[i], chunk) : Row());
        next.rows.back().sample = 1 + i;
      }
      if (next.rows.empty()) return false;
      StepResult result = executor_.Run(next);
      EXPECT_TRUE(result.status.ok()) << result.status;
      for (RowResult& row : result.rows) Take(row, runners[row.sample - 1]);
      return result.status.ok();
    };
    step(StepKind::kPictureEncode, [](Runner& r) { return r.job.picture.rgb != nullptr; });
    while (step(StepKind::kText, [](Runner& r) { return !r.ended; })) {
    }
    step(StepKind::kVaeDecode, [](Runner& r) { return r.job.paints(); });
    std::vector<Outcome> outcomes;
    for (size_t i = 0; i < jobs.size(); ++i) {
      executor_.Drop({1 + i});
      outcomes.push_back(runners[i].outcome);
    }
    return outcomes;
  }
  Outcome RunAlone(const TextJob& job, Resume resume = {}, uint32_t chunk = 512) {
    return RunTogether({job}, {std::move(resume)}, chunk)[0];
  }

  Row NextRow(Runner& runner, uint32_t chunk) {
    Row row;
    const uint32_t source = (runner.job.source_tokens + kPage - 1) / kPage * kPage;
    const uint32_t most = std::max(chunk, runner.cached == 0 ? source : 0);
    const uint32_t count = std::min(most, runner.known - runner.cached);
    if (count > 1) row.prefill_tokens = count;
    runner.cached += count;
    const uint32_t all = runner.job.prompt.size() + runner.job.max_tokens - 1;
    while (runner.pages * kPage < (runner.job.paints() ? all : runner.cached)) {
      row.new_pages.push_back(next_page_++);
      ++runner.pages;
    }
    return row;
  }
  static void Take(RowResult& row, Runner& runner) {
    runner.outcome.status = row.status;
    runner.ended = runner.ended || !row.status.ok() || row.skipped;
    runner.known += row.tokens.size();
    for (const Token& token : row.tokens) {
      runner.outcome.ids.push_back(token.id);
      runner.outcome.logprobs.push_back(token.logprob);
      for (const TokenCandidate& top : token.top) {
        EXPECT_EQ(top.id >= kWords, runner.job.paints());
        EXPECT_LT(top.id, kWords + kCodes);
      }
    }
    if (!row.picture.rgb.empty()) {
      EXPECT_EQ(row.picture.width, kWidth);
      EXPECT_EQ(row.picture.height, kHeight);
      runner.outcome.rgb = std::move(row.picture.rgb);
    }
  }

  // What the first step of a bad job says.
  std::string ErrorOf(const TextJob& job, const Resume& resume = {}) {
    executor_.Begin(9, 0, job, resume);
    Row row = {9, static_cast<uint32_t>(job.prompt.size()), {0, 1, 2, 3}, false};
    const StepResult result = executor_.Run({1, 0, StepKind::kText, {row}});
    if (result.rows.empty()) return std::string(result.status.message());
    return std::string(result.rows[0].status.message());
  }

  TorchExecutor executor_;
  testing::Golden golden_;
  LoadedModel loaded_;
  uint32_t next_page_ = 0;
};

TEST_F(ErnieVilgPipelineTest, ReportsWhatTheModelCanDo) {
  EXPECT_EQ(loaded_.architecture, "ErnieViLGPipeline");
  EXPECT_EQ(loaded_.context_tokens, 32u + 1 + 15);  // a text of 20, in whole pages, and a picture
  EXPECT_EQ(loaded_.vocabulary_size, kWords + kCodes);
  EXPECT_EQ(loaded_.page_tokens, kPage);
  EXPECT_GT(loaded_.page_bytes, 0u);
  EXPECT_EQ(loaded_.latent_factor, 8u);
  EXPECT_EQ(loaded_.default_size, kWidth);
  EXPECT_EQ(loaded_.prompt_tokens, 20u);
}

TEST_F(ErnieVilgPipelineTest, PicturesAndTextsAreTheReferences) {
  const std::vector<Outcome> outcomes =
      RunTogether({Painting("0"), Caption("0"), Painting("1"), Caption("1")});
  for (size_t i = 0; i < outcomes.size(); ++i) {
    ASSERT_TRUE(outcomes[i].status.ok()) << outcomes[i].status;
    const bool paints = i % 2 == 0;
    const std::string prefix = absl::StrCat(paints ? "paint." : "write.", i / 2);
    std::vector<uint32_t> expected = Ids(prefix + (paints ? ".codes" : ".ids"));
    for (uint32_t& id : expected) id += paints ? kWords : 0;
    EXPECT_EQ(outcomes[i].ids, expected) << prefix;
    if (!paints) continue;
    const std::string rgb = Bytes(prefix + ".rgb");
    ASSERT_EQ(outcomes[i].rgb.size(), rgb.size());
    int different = 0;
    for (size_t b = 0; b < rgb.size(); ++b) {
      const int difference =
          static_cast<uint8_t>(rgb[b]) - static_cast<uint8_t>(outcomes[i].rgb[b]);
      EXPECT_LE(std::abs(difference), 1);
      different += difference != 0;
    }
    EXPECT_LE(different, static_cast<int>(rgb.size() / 100));
  }
}

TEST_F(ErnieVilgPipelineTest, ASampleDependsNeitherOnItsCompanyNorOnItsChunks) {
  const std::vector<TextJob> jobs = {Drawn(Painting("0"), 5), Drawn(Painting("0"), 6),
                                     Drawn(Caption("0"), 7), Drawn(Painting("1"), 8),
                                     Drawn(Caption("1"), 9)};
  const std::vector<Outcome> together = RunTogether(jobs);
  for (size_t i = 0; i < jobs.size(); ++i) {
    for (const uint32_t chunk : {512, 1}) {
      const Outcome alone = RunAlone(jobs[i], {}, chunk);
      ASSERT_TRUE(alone.status.ok()) << alone.status;
      EXPECT_EQ(alone.ids, together[i].ids);
      EXPECT_EQ(alone.logprobs, together[i].logprobs);  // bit for bit
      EXPECT_EQ(alone.rgb, together[i].rgb);
    }
  }
  EXPECT_NE(together[0].ids, together[1].ids);
}

TEST_F(ErnieVilgPipelineTest, GoesOnFromEmittedTokensWithTheSameBytes) {
  for (const TextJob& job : {Drawn(Painting("1"), 3), Drawn(Caption("1"), 4)}) {
    const Outcome whole = RunAlone(job);
    ASSERT_TRUE(whole.status.ok()) << whole.status;
    for (size_t emitted = 1; emitted + 1 < whole.ids.size(); emitted += 4) {
      for (const uint32_t chunk : {512, 3}) {
        Resume resume;
        resume.emitted.assign(whole.ids.begin(), whole.ids.begin() + emitted);
        const Outcome resumed = RunAlone(job, resume, chunk);
        ASSERT_TRUE(resumed.status.ok()) << resumed.status;
        EXPECT_EQ(resumed.ids, whole.ids);
        EXPECT_EQ(resumed.rgb, whole.rgb);
      }
    }
  }
}

// Its worker died after the last token and before the pixels.
TEST_F(ErnieVilgPipelineTest, APictureOfWhichEveryTokenIsEmittedIsOnlyDecoded) {
  const TextJob job = Drawn(Painting("1"), 3);
  const Outcome whole = RunAlone(job);
  Resume resume;
  resume.emitted = whole.ids;
  const Outcome resumed = RunAlone(job, resume);
  ASSERT_TRUE(resumed.status.ok()) << resumed.status;
  EXPECT_EQ(resumed.ids, whole.ids);
  EXPECT_EQ(resumed.rgb, whole.rgb);
}

TEST_F(ErnieVilgPipelineTest, CandidatesReadTheirSourceFromSharedPages) {
  TextJob first = Drawn(Painting("1"), 3), second = Drawn(Painting("1"), 4);
  const Outcome alone = RunAlone(second);
  RunAlone(first);  // its source is in pages 0 and 1
  Resume resume;
  resume.cached_tokens = 2 * kPage;
  executor_.Begin(2, 0, second, resume);
  std::vector<uint32_t> ids;
  Row row = {2, 0, {0, 1, 30, 31}, false};
  for (uint32_t i = 0; i < kTokens; ++i, row.new_pages.clear()) {
    StepResult result = executor_.Run({1, 0, StepKind::kText, {row}});
    ASSERT_TRUE(result.rows[0].status.ok()) << result.rows[0].status;
    ids.push_back(result.rows[0].tokens[0].id);
  }
  EXPECT_EQ(ids, alone.ids);
  executor_.Drop({2});
}

TEST_F(ErnieVilgPipelineTest, ACaptionWhoseSourceIsCachedNeedsNoPicture) {
  const TextJob job = Caption("0");
  const Outcome alone = RunAlone(job);
  Resume resume;
  resume.cached_tokens = kPage;
  executor_.Begin(2, 0, job, resume);
  const StepResult result = executor_.Run({1, 0, StepKind::kText, {{2, 0, {0, 20}, false}}});
  ASSERT_TRUE(result.rows[0].status.ok()) << result.rows[0].status;
  EXPECT_EQ(result.rows[0].tokens[0].id, alone.ids[0]);
  executor_.Drop({2});
}

TEST_F(ErnieVilgPipelineTest, ATextBeginsAsItWasTold) {
  TextJob job = Caption("0");
  const Outcome free_run = RunAlone(job);
  ASSERT_GT(free_run.ids.size(), 4u);
  job.prompt.insert(job.prompt.end(), free_run.ids.begin(), free_run.ids.begin() + 3);
  job.max_tokens = 17;
  EXPECT_EQ(RunAlone(job).ids, std::vector<uint32_t>(free_run.ids.begin() + 3, free_run.ids.end()));
}

TEST_F(ErnieVilgPipelineTest, OnlyWordsAreWrittenAndNoneThatBeginOrPad) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    TextJob job = Drawn(Caption("0"), seed);
    job.sampling.temperature = 50;  // nearly equal chances
    job.stop_token_ids = {kSep};
    for (const uint32_t id : {2u, kPad, kBoi, kBot}) job.sampling.logit_bias[id] = 100;
    const Outcome outcome = RunAlone(job);
    ASSERT_TRUE(outcome.status.ok()) << outcome.status;
    for (const uint32_t id : outcome.ids) {
      EXPECT_LT(id, kWords);
      EXPECT_THAT(id, ::testing::Not(::testing::AnyOf(2u, kPad, kBoi, kBot)));
    }
    const auto end = std::find(outcome.ids.begin(), outcome.ids.end(), kSep);
    EXPECT_EQ(outcome.ids.size(), std::min<size_t>(20, end - outcome.ids.begin() + 1));
  }
}

TEST_F(ErnieVilgPipelineTest, BadSamplesAreRefusedByTheirField) {
  const auto changed = [](TextJob job, const std::function<void(TextJob&)>& change) {
    change(job);
    return job;
  };
  const TextJob paint = Painting("0"), write = Caption("0");
  const std::pair<TextJob, const char*> cases[] = {
      {changed(paint, [](TextJob& j) { j.source_tokens = 0; }), "source_tokens: 0, 1 to 20"},
      {changed(paint, [](TextJob& j) { j.source_tokens = 21; }), "source_tokens: 21"},
      {changed(paint, [](TextJob& j) { j.prompt.pop_back(); }), "prompt: 16 tokens"},
      {changed(paint, [](TextJob& j) { j.prompt[1] = 109; }), "prompt: token 109, below 109"},
      {changed(paint, [](TextJob& j) { j.prompt[1] = 108; }), "token id 108 at position 1"},
      {changed(paint, [](TextJob& j) { j.prompt[16] = kBot; }), "token id 5 at position 16"},
      {changed(paint, [](TextJob& j) { j.max_tokens = 14; }), "max_tokens: 14"},
      {changed(paint, [](TextJob& j) { j.paint_height = 32; }), "size: 40 x 32, 40 x 24 expected"},
      {changed(paint, [](TextJob& j) { j.score_prompt = {1}; }), "score_prompt"},
      {changed(write, [](TextJob& j) { j.max_tokens = 21; }), "max_tokens: 21"},
      {changed(write, [](TextJob& j) { j.max_tokens = 0; }), "max_tokens: 0"},
      {changed(write, [](TextJob& j) { j.picture.width = 24; }), "picture: 24 x 24"},
      {changed(write, [](TextJob& j) { j.picture = {}; }), "picture: 0 x 0, 40 x 24 expected"},
      {changed(write, [](TextJob& j) { j.source_tokens = 14; }), "source_tokens: 14, 15 to 15"},
      {write, "the picture is not encoded yet"},
  };
  for (const auto& [job, message] : cases) EXPECT_THAT(ErrorOf(job), HasSubstr(message));
  Resume resume;
  resume.emitted = {60};
  EXPECT_THAT(ErrorOf(paint, resume), HasSubstr("emitted: token 60, 61 to 108 expected"));
  resume.emitted.assign(kTokens + 1, 70);
  EXPECT_THAT(ErrorOf(paint, resume), HasSubstr("emitted: 16 tokens, at most 15 expected"));
  resume.emitted.clear();
  resume.cached_tokens = 8;
  EXPECT_THAT(ErrorOf(paint, resume), HasSubstr("cached_tokens: 8"));
  // The good ones beside them are well.
  executor_.Begin(1, 0, paint, {});
  executor_.Begin(2, 0, cases[4].first, {});
  const StepResult result =
      executor_.Run({1, 0, StepKind::kText, {{1, 17, {0, 1}, false}, {2, 17, {2, 3}, false}}});
  EXPECT_TRUE(result.rows[0].status.ok()) << result.rows[0].status;
  EXPECT_FALSE(result.rows[1].status.ok());
  const StepResult early = executor_.Run({2, 0, StepKind::kVaeDecode, {{1, 0, {}, false}}});
  EXPECT_THAT(std::string(early.rows[0].status.message()), HasSubstr("1 picture tokens painted"));
}

}  // namespace
}  // namespace hanmo
