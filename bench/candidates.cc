// What the candidates of one prompt share: the real batcher plans one and sixteen pictures of a
// prompt of 64 tokens over a model of ERNIE-ViLG 1.0's true width (zero_ernie_vilg.h), with and
// without shared pages, up to the first tokens of all. Prints one line of JSON for each.
//
//   bench_candidates THREADS [LAYERS [ROUNDS]]
//
// Rounds of the kinds alternate; times are medians. "source_seconds" is the time of the steps in
// which the prompt was run, "tokens_run" counts the tokens of all steps.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "bench/zero_ernie_vilg.h"
#include "server/batcher/batcher.h"
#include "server/batcher/testing/ignoring_sink.h"

namespace hanmo {
namespace {

constexpr uint32_t kMostCandidates = 16;
constexpr uint32_t kPageTokens = TextModel::kPageTokens;

uint32_t PagesFor(int64_t tokens) {
  return static_cast<uint32_t>((tokens + kPageTokens - 1) / kPageTokens);
}

// What a round measured.
struct Round {
  double source_seconds = 0;
  double seconds = 0;
  uint32_t source_tokens = 0;
  uint32_t tokens = 0;
  uint32_t pages = 0;
};

// A worker without the process around it: it runs what it was sent when told to.
class Worker final : public WorkerLink {
 public:
  Worker(const ErnieVilg& model, KvCache& cache, Batcher* batcher, Round* round)
      : model_(model), cache_(cache), batcher_(batcher), round_(round) {}

  void Begin(SampleHandle handle, ModelId, const SampleJob& job, hanmo::Resume resume) override {
    Sample& sample = samples_[handle];
    sample.job = std::get<TextJob>(job);
    sample.tokens.assign(sample.job.prompt.begin(), sample.job.prompt.end());
    sample.cached = resume.cached_tokens;
  }
  void Run(const Step& step) override { steps_.push_back(step); }
  void Resume(uint64_t, absl::Duration) override {}
  void Save(const std::vector<SampleHandle>&) override {}
  void Drop(const std::vector<SampleHandle>&) override {}

  // The next step; false when there is none, or on an error, which it prints.
  bool RunStep() {
    if (steps_.empty()) return false;
    const Step step = std::move(steps_.front());
    steps_.pop_front();
    std::vector<VilgRow> rows;
    uint32_t source_tokens = 0;
    for (const Row& row : step.rows) {
      Sample& sample = samples_[row.sample];
      sample.pages.insert(sample.pages.end(), row.new_pages.begin(), row.new_pages.end());
      const size_t count = std::max<size_t>(1, row.prefill_tokens);
      if (sample.cached == 0) source_tokens += sample.job.source_tokens;
      round_->tokens += count;
      rows.push_back({.tokens = absl::MakeConstSpan(sample.tokens).subspan(sample.cached, count),
                      .start = static_cast<int64_t>(sample.cached),
                      .source_tokens = sample.job.source_tokens,
                      .paints = true,
                      .page_table = sample.pages});
    }
    const auto start = std::chrono::steady_clock::now();
    const auto logits = model_.Run(rows, cache_);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (!logits.ok()) {
      std::cerr << logits.status() << "\n";
      return false;
    }
    round_->seconds += taken.count();
    round_->source_tokens += source_tokens;
    if (source_tokens > 0) round_->source_seconds += taken.count();
    StepResult result;
    result.step = step.id;
    result.device_time = absl::Seconds(taken.count());
    for (const Row& row : step.rows) {
      Sample& sample = samples_[row.sample];
      RowResult& done = result.rows.emplace_back();
      done.sample = row.sample;
      sample.cached += std::max<size_t>(1, row.prefill_tokens);
      if (sample.cached < sample.tokens.size()) continue;
      // Of zeros every picture is the same.
      sample.tokens.push_back(static_cast<int32_t>(model_.config().text_vocabulary));
      done.tokens.push_back({static_cast<uint32_t>(sample.tokens.back()), 0, {}});
    }
    batcher_->StepDone(0, std::move(result));
    return true;
  }

 private:
  struct Sample {
    TextJob job;
    std::vector<int32_t> tokens;
    std::vector<int32_t> pages;
    size_t cached = 0;
  };

  const ErnieVilg& model_;
  KvCache& cache_;
  Batcher* const batcher_;
  Round* const round_;
  std::map<SampleHandle, Sample> samples_;
  std::deque<Step> steps_;
};

struct FirstTokens final : testing::IgnoringSink {
  explicit FirstTokens(uint32_t candidates) : seen(candidates) {}
  void OnStep(uint32_t index, uint32_t, uint32_t) override { seen[index] = true; }
  bool all() const { return std::count(seen.begin(), seen.end(), true) == std::ssize(seen); }

  std::vector<bool> seen;
};

struct UsedPages final : BatcherObserver {
  void OnPages(WorkerId, ModelId, uint32_t used, uint32_t) override { most = std::max(most, used); }
  uint32_t most = 0;
};

TextJob Painting(const ErnieVilgConfig& config, uint64_t seed) {
  TextJob job;
  job.source_tokens = static_cast<uint32_t>(config.text_tokens);
  for (uint32_t i = 0; i < job.source_tokens; ++i) job.prompt.push_back(100 + i);
  job.prompt.resize(PagesFor(job.source_tokens) * kPageTokens, config.pad);
  job.prompt.push_back(config.begin_picture);
  job.max_tokens = static_cast<uint32_t>(config.picture_tokens());
  job.paint_width = job.paint_height = 256;
  job.sampling.seed = seed;
  return job;
}

Round RunOnce(const ErnieVilg& model, KvCache& cache, uint32_t candidates, bool shares) {
  Round round;
  UsedPages pages;
  BatcherOptions options;
  if (shares) options.prefix_cache_bytes = uint64_t{1} << 28;
  Batcher batcher(options, &pages, [] {});
  auto worker = std::make_shared<Worker>(model, cache, &batcher, &round);
  batcher.AddWorker(0, worker);
  batcher.ModelReady(
      0, 0,
      {kPageTokens, static_cast<uint32_t>(cache.pages), static_cast<uint64_t>(model.page_bytes())});
  Request request;
  for (uint32_t i = 0; i < candidates; ++i) {
    request.samples.push_back(Painting(model.config(), i));
  }
  auto first = std::make_shared<FirstTokens>(candidates);
  batcher.Submit(std::move(request), first);
  absl::Time now = absl::UnixEpoch();
  do {
    batcher.Tick(now += absl::Milliseconds(1));
  } while (!first->all() && worker->RunStep());
  round.pages = pages.most;
  return round;
}

double Median(const std::vector<Round>& rounds, double Round::* figure) {
  std::vector<double> figures;
  for (const Round& round : rounds) figures.push_back(round.*figure);
  std::nth_element(figures.begin(), figures.begin() + figures.size() / 2, figures.end());
  return figures[figures.size() / 2];
}

int Main(int threads, int64_t layers, int rounds) {
  at::set_num_threads(threads);
  const at::NoGradGuard no_grad;
  const auto model = LoadZeroErnieVilg(layers, /*sparse=*/true);
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  // With the spare page for each that the batcher keeps.
  KvCache cache = (*model)->MakeCache(kMostCandidates * (PagesFor((*model)->context_tokens()) + 2));
  Touch(cache);
  struct Kind {
    uint32_t candidates;
    bool shares;
    std::vector<Round> rounds;
  };
  std::vector<Kind> kinds = {
      {1, true, {}}, {kMostCandidates, true, {}}, {kMostCandidates, false, {}}};
  for (int i = 0; i <= rounds; ++i) {
    for (Kind& kind : kinds) {
      const Round round = RunOnce(**model, cache, kind.candidates, kind.shares);
      if (i > 0) kind.rounds.push_back(round);  // the first warms up
    }
  }
  for (const Kind& kind : kinds) {
    const Round& last = kind.rounds.back();
    std::cout << nlohmann::json({{"layers", layers},
                                 {"candidates", kind.candidates},
                                 {"shared", kind.shares},
                                 {"source_tokens", last.source_tokens},
                                 {"tokens_run", last.tokens},
                                 {"pages", last.pages},
                                 {"page_bytes", (*model)->page_bytes()},
                                 {"source_seconds", Median(kind.rounds, &Round::source_seconds)},
                                 {"first_tokens_seconds", Median(kind.rounds, &Round::seconds)}})
              << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) {
  if (argc < 2 || argc > 4) {
    std::cerr << "usage: bench_candidates THREADS [LAYERS [ROUNDS]]\n";
    return 2;
  }
  return hanmo::Main(std::stoi(argv[1]), argc > 2 ? std::stoi(argv[2]) : 4,
                     argc > 3 ? std::stoi(argv[3]) : 5);
}
