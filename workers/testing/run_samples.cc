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

namespace {

// A text on its way, as the batcher sees it.
struct Writer {
  WrittenText text;
  uint32_t known = 0;   // tokens the executor may run
  uint32_t cached = 0;  // of them, run
  uint32_t limit = 0;   // tokens that are ever run
  uint32_t pages = 0;
  bool ended = false;
};

Row NextRow(const WriteOptions& options, uint32_t& next_page, Writer& writer) {
  Row row;
  const uint32_t count = std::min(options.chunk, writer.known - writer.cached);
  if (count > 1 || writer.cached + 1 < writer.known) {
    row.prefill_tokens = count;
  } else {
    row.draft_tokens = options.draft_tokens;
  }
  if (writer.pages == 0) {
    row.new_pages = options.shared_pages;
    writer.pages = static_cast<uint32_t>(row.new_pages.size());
  }
  writer.cached += count;
  const uint32_t positions = std::min(writer.cached + row.draft_tokens, writer.limit);
  while (writer.pages * kPageTokens < positions) {
    row.new_pages.push_back(next_page++);
    ++writer.pages;
  }
  return row;
}

void TakeRow(RowResult& row, Writer& writer) {
  writer.text.status = row.status;
  writer.ended = !row.status.ok() || row.skipped;
  ++writer.text.rows;
  writer.text.drafted += row.drafted;
  writer.known += static_cast<uint32_t>(row.tokens.size());
  if (!row.tokens.empty()) writer.cached = writer.known - 1;
  for (Token& token : row.tokens) writer.text.tokens.push_back(std::move(token));
}

}  // namespace

std::vector<WrittenText> WriteTogether(Executor& executor, ModelId model,
                                       const std::vector<TextJob>& jobs,
                                       const WriteOptions& options) {
  std::vector<Writer> writers(jobs.size());
  uint32_t next_page = options.own_page;
  for (size_t i = 0; i < jobs.size(); ++i) {
    const Resume resume = options.resumes.empty() ? Resume() : options.resumes[i];
    writers[i].known = static_cast<uint32_t>(jobs[i].prompt.size() + resume.emitted.size());
    writers[i].cached = resume.cached_tokens;
    writers[i].limit = static_cast<uint32_t>(jobs[i].prompt.size()) + jobs[i].max_tokens - 1;
    executor.Begin(1 + i, model, jobs[i], resume);
  }
  while (true) {
    std::vector<Row> rows;
    for (size_t i = 0; i < jobs.size(); ++i) {
      if (writers[i].ended) continue;
      rows.push_back(NextRow(options, next_page, writers[i]));
      rows.back().sample = 1 + i;
    }
    if (rows.empty()) break;
    RunStep(executor, model, StepKind::kText, std::move(rows),
            [&](RowResult& row) { TakeRow(row, writers[row.sample - 1]); });
  }
  std::vector<WrittenText> texts;
  for (size_t i = 0; i < jobs.size(); ++i) {
    executor.Drop({1 + i});
    texts.push_back(std::move(writers[i].text));
  }
  return texts;
}

}  // namespace hanmo::testing
