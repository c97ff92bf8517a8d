// A worker in memory: strict about the contract, and with contents that show every mistake. Tokens
// and pictures depend on the job alone, so a run with company, deaths and preemption must deliver
// what a lone run delivers.
#ifndef HANMO_SERVER_BATCHER_TESTING_FAKE_WORKER_H_
#define HANMO_SERVER_BATCHER_TESTING_FAKE_WORKER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "server/batcher/batcher.h"
#include "server/batcher/testing/fake_outputs.h"

namespace hanmo::testing {

class FakeWorker final : public WorkerLink {
 public:
  // Reports to `batcher` as worker `id`.
  FakeWorker(WorkerId id, Batcher* batcher) : id_(id), batcher_(batcher) {}

  // Declares a model ready.
  void Serve(ModelId model, ModelCapacity capacity);

  // Executes commands up to and with the next step or resume and reports its result. False when
  // none was waiting, or when the step killed the worker: then nothing is reported.
  bool RunStep();
  void RunAllSteps() {
    while (RunStep()) {
    }
  }

  // A step with a sample of this seed kills the worker.
  void DieOnSeed(uint64_t seed) { deadly_seed_ = seed; }
  // The next step fails as a whole.
  void FailNextStep(absl::Status status) { next_status_ = std::move(status); }
  // Steps of more rows than this fail as a whole: the device is out of memory.
  void FailAbove(size_t rows) { max_rows_ = rows; }
  // The same with more prompt tokens than this.
  void FailAbovePrefill(uint32_t tokens) { max_prefill_ = tokens; }
  // Steps take so much working memory for each of their rows, and afterwards so much is free.
  void SetMemory(uint64_t bytes_per_row, uint64_t free) {
    bytes_per_row_ = bytes_per_row;
    memory_free_ = free;
  }
  // Picture steps with a budget are suspended until they have had this many slices, 3 unless told,
  // each of 10 ms whatever the budget.
  void SetSlices(uint32_t slices) { slices_ = slices; }
  // Pictures need so many variants of the weights, one after another, and a step that needs another
  // than the one before waits for it so long.
  void SetVariants(uint32_t count, absl::Duration change) {
    variants_ = count;
    change_ = change;
  }
  // The row of this seed fails alone.
  void FailRowOfSeed(uint64_t seed) { failing_seed_ = seed; }
  // Pictures come without the score asked for.
  void ForgetScores() { scores_ = false; }

  bool dead() const { return dead_; }
  size_t samples() const { return samples_.size(); }
  // Every step sent so far, executed or not.
  const std::vector<Step>& steps() const { return steps_; }
  // The steps of every resume sent so far.
  const std::vector<uint64_t>& resumes() const { return resumes_; }
  // Resumes that came too late.
  size_t late_resumes() const { return late_resumes_; }
  // The step that is suspended now, after the commands executed.
  std::optional<uint64_t> suspended() const {
    return suspended_.has_value() ? std::optional(suspended_->step.id) : std::nullopt;
  }
  // Steps and resumes sent and not executed.
  size_t steps_waiting() const;
  const std::vector<SampleHandle>& dropped() const { return dropped_; }
  size_t saves() const { return saves_; }
  // Tokens that samples found in shared pages, and guesses run and come true.
  uint32_t shared_tokens() const { return shared_tokens_; }
  uint32_t drafted() const { return drafted_; }
  uint32_t guessed_right() const { return guessed_right_; }
  // Changes from one variant to another.
  uint32_t changes() const { return changes_; }
  // Breaches of the contract; empty in a correct run.
  const std::vector<std::string>& breaches() const { return breaches_; }

  void Begin(SampleHandle sample, ModelId model, const SampleJob& job,
             hanmo::Resume resume) override;
  void Run(const Step& step) override;
  void Resume(uint64_t step, absl::Duration budget) override;
  void Save(const std::vector<SampleHandle>& samples) override;
  void Drop(const std::vector<SampleHandle>& samples) override;

 private:
  struct Sample {
    ModelId model = 0;
    SampleJob job;
    std::vector<uint32_t> emitted;
    std::vector<uint32_t> pages;
    uint32_t cached = 0;
    uint32_t shared = 0;  // of these, from its Begin
    bool ended = false;
    bool broken = false;  // was in a step that failed: what follows makes no sense
    bool encoded = false;
    uint32_t steps = 0;
    uint64_t paint = 0;
  };
  struct BeginCommand {
    SampleHandle handle;
    Sample sample;
  };
  struct SaveCommand {
    std::vector<SampleHandle> samples;
  };
  struct DropCommand {
    std::vector<SampleHandle> samples;
  };
  struct ResumeCommand {
    uint64_t step;
    absl::Duration budget;
  };
  using Command = std::variant<BeginCommand, Step, ResumeCommand, SaveCommand, DropCommand>;

  // A picture step under way with a budget.
  struct SlicedStep {
    Step step;
    uint32_t slices_left;
    std::set<SampleHandle> samples;  // not dropped yet
  };

  void Execute(BeginCommand& begin);
  void Execute(SaveCommand& save);
  void Execute(DropCommand& drop);
  StepResult Execute(const Step& step);
  StepResult Execute(const ResumeCommand& resume);
  // One slice; the last one runs the step.
  StepResult ExecuteSlice(absl::Duration budget);
  StepResult ExecuteWhole(const Step& step);
  RowResult ExecuteRow(const Step& step, const Row& row, Sample& sample);
  void RunTextRow(const Step& step, const Row& row, Sample& sample, RowResult& result);
  void WriteText(const Row& row, Sample& sample, RowResult& result);
  uint32_t PaddedSource(const Sample& sample) const;
  // Breaches of what a source or a picture painted by tokens needs, before `count` tokens are run.
  void CheckSource(const Sample& sample, uint32_t count);
  // The page slot of a position; a breach when there is no page.
  std::pair<ModelId, uint32_t> SlotOf(const Sample& sample, uint32_t position);
  // Runs known tokens and `guesses` more, of which none comes true.
  void RunTokens(Sample& sample, uint32_t known, uint32_t guesses);
  // Draws a token; false when the text has ended.
  bool EmitToken(Sample& sample, RowResult& result);
  void Paint(const Step& step, const Row& row, Sample& sample, RowResult& result);
  uint32_t VariantAt(const Sample& sample, uint32_t call) const;
  // The time for which the step waits for its variant.
  absl::Duration TakeVariant(const Step& step);
  void Breach(const std::string& what) { breaches_.push_back(what); }

  const WorkerId id_;
  Batcher* const batcher_;
  std::map<ModelId, ModelCapacity> models_;
  std::deque<Command> commands_;
  std::map<SampleHandle, Sample> samples_;
  // KV contents of each slot of each page: what stands for all tokens up to there.
  std::map<std::pair<ModelId, uint32_t>, uint64_t> slots_;
  std::vector<Step> steps_;
  std::vector<uint64_t> resumes_;
  size_t late_resumes_ = 0;
  uint32_t slices_ = 3;
  std::optional<SlicedStep> suspended_;
  std::vector<SampleHandle> dropped_;
  std::vector<std::string> breaches_;
  size_t saves_ = 0;
  uint32_t shared_tokens_ = 0;
  uint32_t drafted_ = 0;
  uint32_t guessed_right_ = 0;
  bool dead_ = false;
  uint64_t last_step_ = 0;
  std::optional<uint64_t> deadly_seed_;
  std::optional<uint64_t> failing_seed_;
  absl::Status next_status_;
  size_t max_rows_ = SIZE_MAX;
  uint32_t max_prefill_ = UINT32_MAX;
  bool scores_ = true;
  uint64_t bytes_per_row_ = 0;
  uint64_t memory_free_ = 0;
  uint32_t variants_ = 1;
  absl::Duration change_;
  std::optional<uint32_t> variant_;  // of the last denoising step
  uint32_t changes_ = 0;
};

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_BATCHER_TESTING_FAKE_WORKER_H_
