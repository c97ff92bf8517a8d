#include "workers/testing/run_samples.h"

#include <algorithm>
#include <utility>

namespace hanmo::testing {
namespace {

constexpr uint32_t kPageTokens = 16;

// Runs one step over the samples in `rows` and gives each result to `take`.
template <typename Take>
void RunStep(Executor& executor, ModelId model, StepKind kind, std::vector<Row> rows,
             const Take& take) {
  if (rows.empty()) return;
  const Step step = {1, model, kind, std::move(rows)};
  StepResult result = executor.Run(step);
  for (size_t i = 0; i < step.rows.size(); ++i) {
    RowResult row;
    if (result.status.ok()) {
      row = std::move(result.rows[i]);
    } else {
      row.sample = step.rows[i].sample;
      row.status = result.status;
    }
    take(row);
  }
}

}  // namespace

std::vector<PaintedPicture> PaintTogether(Executor& executor, ModelId model,
                                          const std::vector<PictureJob>& jobs,
                                          SampleHandle first_sample) {
  std::vector<PaintedPicture> pictures(jobs.size());
  std::vector<uint32_t> left(jobs.size(), 0);
  for (size_t i = 0; i < jobs.size(); ++i) executor.Begin(first_sample + i, model, jobs[i], {});
  const auto rows = [&](auto wanted) {
    std::vector<Row> chosen;
    for (size_t i = 0; i < jobs.size(); ++i) {
      if (pictures[i].status.ok() && wanted(i)) chosen.push_back({first_sample + i, 0, {}, false});
    }
    return chosen;
  };
  const auto all = [](size_t) { return true; };
  const auto take = [&](RowResult& row) {
    const size_t i = row.sample - first_sample;
    pictures[i].status = row.status;
    pictures[i].steps = row.steps_done;
    left[i] = row.steps_total - row.steps_done;
    if (!row.picture.rgb.empty()) pictures[i].pixels = std::move(row.picture);
  };
  RunStep(executor, model, StepKind::kTextEncode, rows(all), take);
  const auto unfinished = [&](size_t i) { return left[i] > 0; };
  while (true) {
    std::vector<Row> next = rows(unfinished);
    if (next.empty()) break;
    RunStep(executor, model, StepKind::kDenoise, std::move(next), take);
  }
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (!pictures[i].status.ok()) continue;
    for (SavePoint& point : executor.Save({first_sample + i})) {
      pictures[i].save_point = std::move(point.bytes);
    }
  }
  RunStep(executor, model, StepKind::kVaeDecode, rows(all), take);
  for (size_t i = 0; i < jobs.size(); ++i) executor.Drop({first_sample + i});
  return pictures;
}

std::vector<WrittenText> WriteTogether(Executor& executor, ModelId model,
                                       const std::vector<TextJob>& jobs, uint32_t chunk,
                                       const std::vector<Resume>& resumes) {
  std::vector<WrittenText> texts(jobs.size());
  std::vector<uint32_t> known(jobs.size());   // tokens the executor may run
  std::vector<uint32_t> cached(jobs.size());  // of them, run
  std::vector<uint32_t> pages(jobs.size(), 0);
  std::vector<bool> ended(jobs.size(), false);
  uint32_t next_page = 0;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Resume resume = resumes.empty() ? Resume() : resumes[i];
    known[i] = jobs[i].prompt.size() + resume.emitted.size();
    executor.Begin(1 + i, model, jobs[i], resume);
  }
  while (true) {
    std::vector<Row> rows;
    for (size_t i = 0; i < jobs.size(); ++i) {
      if (ended[i]) continue;
      const uint32_t count = std::min(chunk, known[i] - cached[i]);
      Row row = {1 + i, count > 1 || cached[i] + 1 < known[i] ? count : 0, {}, false};
      cached[i] += count;
      while (pages[i] * kPageTokens < cached[i]) {
        row.new_pages.push_back(next_page++);
        ++pages[i];
      }
      rows.push_back(std::move(row));
    }
    if (rows.empty()) break;
    RunStep(executor, model, StepKind::kText, std::move(rows), [&](RowResult& row) {
      const size_t i = row.sample - 1;
      texts[i].status = row.status;
      if (!row.status.ok() || row.skipped) ended[i] = true;
      for (Token& token : row.tokens) texts[i].tokens.push_back(std::move(token));
      known[i] += row.tokens.size();
    });
  }
  for (size_t i = 0; i < jobs.size(); ++i) executor.Drop({1 + i});
  return texts;
}

}  // namespace hanmo::testing
