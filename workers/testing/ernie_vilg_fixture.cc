#include "workers/testing/ernie_vilg_fixture.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"

namespace hanmo::testing {

ErnieVilgFixture::ErnieVilgFixture()
    : executor_(*ComputeDevice::Open("cpu")),
      golden_(absl::StrCat(kFolder, "/golden.safetensors")) {
  SetComputeThreads(1);
  const absl::Status status = Load(kFolder);
  EXPECT_TRUE(status.ok()) << status;
}

absl::Status ErnieVilgFixture::Load(const std::string& folder) {
  executor_.Unload(0);
  LoadCommand load;
  load.path = folder;
  absl::StatusOr<LoadedModel> loaded = executor_.Load(load);
  if (loaded.ok()) loaded_ = *std::move(loaded);
  return loaded.status();
}

std::vector<uint32_t> ErnieVilgFixture::Ids(const std::string& name) {
  const at::Tensor ids = golden_.Get(name, at::kInt);
  return {ids.data_ptr<int32_t>(), ids.data_ptr<int32_t>() + ids.numel()};
}

std::string ErnieVilgFixture::Bytes(const std::string& name) {
  const at::Tensor bytes = golden_.Get(name, at::kByte).contiguous();
  return {reinterpret_cast<const char*>(bytes.data_ptr<uint8_t>()),
          static_cast<size_t>(bytes.numel())};
}

TextJob ErnieVilgFixture::Painting(const std::string& index) {
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

TextJob ErnieVilgFixture::Caption(const std::string& index) {
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

TextJob ErnieVilgFixture::Drawn(TextJob job, uint64_t seed) {
  job.sampling.temperature = 1;
  job.sampling.seed = seed;
  return job;
}

std::vector<ErnieVilgFixture::Outcome> ErnieVilgFixture::RunTogether(
    const std::vector<TextJob>& jobs, std::vector<Resume> resumes, uint32_t chunk) {
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

Row ErnieVilgFixture::NextRow(Runner& runner, uint32_t chunk) {
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

void ErnieVilgFixture::Take(RowResult& row, Runner& runner) {
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
  runner.outcome.score = row.score;
}

std::string ErnieVilgFixture::ErrorOf(const TextJob& job, const Resume& resume) {
  executor_.Begin(9, 0, job, resume);
  Row row = {9, static_cast<uint32_t>(job.prompt.size()), {0, 1, 2, 3}, false};
  const StepResult result = executor_.Run({1, 0, StepKind::kText, {row}});
  if (result.rows.empty()) return std::string(result.status.message());
  return std::string(result.rows[0].status.message());
}

}  // namespace hanmo::testing
