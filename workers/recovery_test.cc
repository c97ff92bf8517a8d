// The real hanmo-worker under the real fleet: what is aboard when it dies ends with the bytes of an
// undisturbed run.
#include <gtest/gtest.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "server/worker_link/fleet.h"
#include "workers/testing/run_samples.h"

namespace hanmo {
namespace {

using testing::PaintedPicture;
using testing::PaintTogether;
using testing::WriteTogether;
using testing::WrittenText;

constexpr absl::Duration kPatience = absl::Seconds(120);
constexpr char kPictures[] = "tests/goldens/pipelines/taiyi";
constexpr char kTexts[] = HANMO_TEXT_GOLDEN;
constexpr ModelId kPictureModel = 0;
constexpr ModelId kTextModel = 1;

// A worker process behind the executor's interface: each command waits for its answer.
class RemoteExecutor final : public Executor, public WorkerEvents, public FleetObserver {
 public:
  WorkerHello Describe() const override { return {}; }
  absl::StatusOr<LoadedModel> Load(const LoadCommand&) override { return LoadedModel(); }
  void Unload(ModelId) override {}
  void Detach() override {}
  void Begin(SampleHandle sample, ModelId model, SampleJob job, Resume resume) override {
    link()->Begin(sample, model, job, std::move(resume));
  }
  // UNAVAILABLE when the worker dies first. Telling a listener means: with the shortest budget, and
  // at every suspension.
  StepResult RunInSlices(const Step& step, YieldListener* listener) override {
    Step sent = step;
    if (listener != nullptr) sent.budget = absl::Microseconds(1);
    Send(std::move(sent));
    const uint64_t id = last_step_;
    StepResult result = Await();
    while (result.suspended) {
      EXPECT_EQ(result.step, id);
      EXPECT_TRUE(result.rows.empty());
      listener->OnYieldPoint();
      link()->Resume(id, absl::Microseconds(1));
      result = Await();
    }
    return result;
  }
  // Goes on with a step that is not there to go on.
  StepResult ResumeLate(uint64_t step) {
    link()->Resume(step, absl::ZeroDuration());
    return Await();
  }
  std::vector<SavePoint> Save(const std::vector<SampleHandle>& samples) override {
    link()->Save(samples);
    absl::MutexLock lock(&mu_);
    auto answered = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return saved_.size() == samples.size();
    };
    EXPECT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&answered), kPatience));
    return std::exchange(saved_, {});
  }
  void Drop(const std::vector<SampleHandle>& samples) override { link()->Drop(samples); }

  uint64_t last_step() const { return last_step_; }
  // As Run without waiting.
  void Send(Step step) {
    step.id = ++last_step_;
    link()->Run(step);
  }
  void AwaitReady(int models) {
    absl::MutexLock lock(&mu_);
    auto ready = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return ready_ == models; };
    ASSERT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&ready), kPatience)) << failure_;
  }
  void AwaitLost() {
    absl::MutexLock lock(&mu_);
    auto lost = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return !reason_.empty(); };
    ASSERT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&lost), kPatience));
  }
  // How the worker ended; also forgets the answers that its death left behind.
  std::string TakeReason() {
    absl::MutexLock lock(&mu_);
    answer_.reset();
    saved_.clear();
    return std::exchange(reason_, "");
  }

 private:
  StepResult Await() {
    absl::MutexLock lock(&mu_);
    auto answered = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return answer_.has_value(); };
    EXPECT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&answered), kPatience));
    StepResult result = answer_.value_or(StepResult());
    answer_.reset();
    return result;
  }
  std::shared_ptr<WorkerLink> link() {
    absl::MutexLock lock(&mu_);
    return link_;
  }
  void AddWorker(WorkerId, std::shared_ptr<WorkerLink> link) override {
    absl::MutexLock lock(&mu_);
    link_ = std::move(link);
  }
  void ModelReady(WorkerId, ModelId, ModelCapacity) override {
    absl::MutexLock lock(&mu_);
    ++ready_;
  }
  void ModelFailed(ModelId) override {}
  void StepDone(WorkerId, StepResult result) override {
    absl::MutexLock lock(&mu_);
    answer_ = std::move(result);
  }
  void Saved(WorkerId, SavePoint save_point) override {
    absl::MutexLock lock(&mu_);
    saved_.push_back(std::move(save_point));
  }
  void WorkerLost(WorkerId) override {
    absl::MutexLock lock(&mu_);
    ready_ = 0;
    answer_.emplace().status = absl::UnavailableError("the worker died");
  }
  void OnModelLoaded(WorkerId, ModelId, const LoadedModel&) override {}
  void OnModelFailed(WorkerId, ModelId, const absl::Status& status) override {
    absl::MutexLock lock(&mu_);
    failure_ = std::string(status.message());
  }
  void OnWorkerLost(WorkerId, const std::string& reason) override {
    absl::MutexLock lock(&mu_);
    reason_ = reason;
  }

  uint64_t last_step_ = 0;
  absl::Mutex mu_;
  std::shared_ptr<WorkerLink> link_ ABSL_GUARDED_BY(mu_);
  std::optional<StepResult> answer_ ABSL_GUARDED_BY(mu_);
  std::vector<SavePoint> saved_ ABSL_GUARDED_BY(mu_);
  int ready_ ABSL_GUARDED_BY(mu_) = 0;
  std::string failure_ ABSL_GUARDED_BY(mu_);
  std::string reason_ ABSL_GUARDED_BY(mu_);
};

class RecoveryTest : public ::testing::Test {
 protected:
  void StartFleet(std::vector<std::string> worker_args = {}) {
    FleetOptions options;
    options.worker_program = HANMO_WORKER_PROGRAM;
    options.devices = {"cpu"};
    options.worker_threads = 1;
    options.worker_args = std::move(worker_args);
    options.worker_args.push_back("--log-level=error");
    options.min_backoff = absl::Milliseconds(1);
    fleet_.emplace(options,
                   std::vector<FleetModel>{{kPictureModel, "picture", kPictures},
                                           {kTextModel, "text", kTexts}},
                   &remote_, &remote_);
    ASSERT_TRUE(fleet_->Start().ok());
    remote_.AwaitReady(2);
  }
  // Of the one worker, which is a direct child with the program's name.
  static pid_t WorkerPid() {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream file(task.path() / "children");
      if (pid_t pid; file >> pid) {
        std::string name;
        std::ifstream(absl::StrCat("/proc/", pid, "/comm")) >> name;
        EXPECT_EQ(name, "hanmo-worker");
        return pid;
      }
    }
    return -1;
  }
  static PictureJob Picture(const std::string& sampler, uint64_t seed) {
    const nlohmann::json prompts =
        nlohmann::json::parse(std::ifstream("tests/goldens/pipelines/golden.json")).at("prompts");
    PictureJob job;
    job.prompt = prompts.at("taiyi").at("prompt").get<std::vector<uint32_t>>();
    job.negative_prompt = prompts.at("taiyi").at("negative_prompt").get<std::vector<uint32_t>>();
    job.width = job.height = 32;
    job.sampler = sampler;
    job.steps = 6;
    job.guidance = 5;
    job.seed = seed;
    return job;
  }
  static TextJob Text(uint64_t seed) {
    TextJob job;
    job.prompt = {5, 9, 2, 7};
    job.sampling.seed = seed;
    job.sampling.temperature = 1.2f;
    job.max_tokens = 24;
    return job;
  }

  RemoteExecutor remote_;
  std::optional<Fleet> fleet_;  // ends before what it reports to
};

TEST_F(RecoveryTest, PicturesAboardAtAKillEndWithTheSameBytes) {
  StartFleet();
  const std::vector<PictureJob> jobs = {Picture("pndm", 1), Picture("euler_a", 2),
                                        Picture("unipc", 3)};
  const std::vector<PaintedPicture> undisturbed =
      PaintTogether(remote_, kPictureModel, jobs, /*first_sample=*/1);

  const auto step = [](StepKind kind, SampleHandle first) {
    return Step{0,
                kPictureModel,
                kind,
                {{first, 0, {}, false}, {first + 1, 0, {}, false}, {first + 2, 0, {}, false}}};
  };
  for (size_t i = 0; i < jobs.size(); ++i) remote_.Begin(11 + i, kPictureModel, jobs[i], {});
  remote_.Run(step(StepKind::kTextEncode, 11));
  remote_.Run(step(StepKind::kDenoise, 11));
  remote_.Run(step(StepKind::kDenoise, 11));
  const std::vector<SavePoint> saved = remote_.Save({11, 12, 13});
  remote_.Run(step(StepKind::kDenoise, 11));
  remote_.Send(step(StepKind::kDenoise, 11));
  remote_.Send(step(StepKind::kDenoise, 11));
  ASSERT_EQ(kill(WorkerPid(), SIGKILL), 0);
  remote_.AwaitLost();
  EXPECT_EQ(remote_.TakeReason(), "signal 9 (Killed)");
  remote_.AwaitReady(2);

  for (size_t i = 0; i < jobs.size(); ++i) {
    ASSERT_EQ(saved[i].steps_done, 2u);
    remote_.Begin(21 + i, kPictureModel, jobs[i], {{}, saved[i].bytes});
  }
  StepResult result = remote_.Run(step(StepKind::kTextEncode, 21));
  for (size_t i = 0; i < jobs.size(); ++i) {
    Step alone = {0, kPictureModel, StepKind::kDenoise, {{21 + i, 0, {}, false}}};
    RowResult row = result.rows[i];
    ASSERT_TRUE(row.status.ok()) << row.status;
    EXPECT_EQ(row.steps_done, 2u);
    while (row.status.ok() && row.steps_done < row.steps_total) row = remote_.Run(alone).rows[0];
    alone.kind = StepKind::kVaeDecode;
    row = remote_.Run(alone).rows[0];
    ASSERT_TRUE(row.status.ok()) << row.status;
    EXPECT_EQ(row.picture.rgb, undisturbed[i].pixels.rgb) << jobs[i].sampler;
  }
}

// Runs every picture step in slices, and something at each suspension.
class SlicingExecutor final : public Executor, private YieldListener {
 public:
  SlicingExecutor(Executor* executor, std::function<void()> between)
      : executor_(executor), between_(std::move(between)) {}
  int slices() const { return slices_; }

  WorkerHello Describe() const override { return executor_->Describe(); }
  absl::StatusOr<LoadedModel> Load(const LoadCommand& load) override {
    return executor_->Load(load);
  }
  void Unload(ModelId model) override { executor_->Unload(model); }
  void Begin(SampleHandle sample, ModelId model, SampleJob job, Resume resume) override {
    executor_->Begin(sample, model, std::move(job), std::move(resume));
  }
  StepResult RunInSlices(const Step& step, YieldListener*) override {
    return executor_->RunInSlices(step, this);
  }
  std::vector<SavePoint> Save(const std::vector<SampleHandle>& samples) override {
    return executor_->Save(samples);
  }
  void Drop(const std::vector<SampleHandle>& samples) override { executor_->Drop(samples); }
  void Detach() override { executor_->Detach(); }

 private:
  bool OnYieldPoint() override {
    ++slices_;
    between_();
    return true;
  }

  Executor* const executor_;
  const std::function<void()> between_;
  int slices_ = 0;
};

TEST_F(RecoveryTest, APictureInSlicesWithTextsBetweenThemHasTheSameBytes) {
  StartFleet();
  const PictureJob job = Picture("unipc", 3);
  const PaintedPicture whole = PaintTogether(remote_, kPictureModel, {job}, 1)[0];
  const std::vector<WrittenText> text = WriteTogether(remote_, kTextModel, {Text(1)});
  ASSERT_TRUE(whole.status.ok()) << whole.status;

  SlicingExecutor sliced(&remote_, [&, suspensions = 0]() mutable {
    if (++suspensions % 100 != 0) return;
    const std::vector<WrittenText> again = WriteTogether(remote_, kTextModel, {Text(1)});
    ASSERT_EQ(again[0].tokens.size(), text[0].tokens.size()) << again[0].status;
    for (size_t i = 0; i < text[0].tokens.size(); ++i) {
      EXPECT_EQ(again[0].tokens[i].id, text[0].tokens[i].id);
    }
  });
  const PaintedPicture again = PaintTogether(sliced, kPictureModel, {job}, 11)[0];
  EXPECT_EQ(again.pixels.rgb, whole.pixels.rgb);
  EXPECT_EQ(again.save_point, whole.save_point);
  EXPECT_GT(sliced.slices(), 200);
  const StepResult late = remote_.ResumeLate(remote_.last_step());
  EXPECT_TRUE(late.already_done);
  EXPECT_EQ(late.step, remote_.last_step());
}

TEST_F(RecoveryTest, TextsAboardAtAKillGoOnWithTheSameTokens) {
  StartFleet();
  const std::vector<TextJob> jobs = {Text(1), Text(2)};
  const std::vector<WrittenText> undisturbed = WriteTogether(remote_, kTextModel, jobs);
  ASSERT_TRUE(undisturbed[0].status.ok()) << undisturbed[0].status;
  ASSERT_EQ(undisturbed[0].tokens.size(), 24u);
  ASSERT_EQ(kill(WorkerPid(), SIGKILL), 0);
  remote_.AwaitLost();
  EXPECT_EQ(remote_.TakeReason(), "signal 9 (Killed)");
  remote_.AwaitReady(2);
  // The client has 10 tokens of the first and 17 of the second.
  std::vector<Resume> resumes(2);
  for (size_t i = 0; i < 10; ++i) resumes[0].emitted.push_back(undisturbed[0].tokens[i].id);
  for (size_t i = 0; i < 17; ++i) resumes[1].emitted.push_back(undisturbed[1].tokens[i].id);
  const std::vector<WrittenText> rest =
      WriteTogether(remote_, kTextModel, jobs, {.chunk = 3, .resumes = resumes});
  for (size_t text = 0; text < 2; ++text) {
    const size_t emitted = resumes[text].emitted.size();
    ASSERT_EQ(rest[text].tokens.size(), 24 - emitted) << rest[text].status;
    for (size_t i = emitted; i < 24; ++i) {
      EXPECT_EQ(rest[text].tokens[i - emitted].id, undisturbed[text].tokens[i].id) << i;
    }
  }
}

TEST_F(RecoveryTest, APoisonedPictureKillsEachWorkerAndItsNeighbourFinishesAfterwards) {
  StartFleet({"--fault=abort-on-seed:13@step:3"});
  const PictureJob neighbour = Picture("ddim", 12), poison = Picture("ddim", 13);
  const PaintedPicture undisturbed =
      PaintTogether(remote_, kPictureModel, {neighbour}, /*first_sample=*/1)[0];
  for (SampleHandle first : {11, 21}) {
    const std::vector<PaintedPicture> both =
        PaintTogether(remote_, kPictureModel, {neighbour, poison}, first);
    EXPECT_EQ(both[0].status.code(), absl::StatusCode::kUnavailable);
    remote_.AwaitLost();
    EXPECT_EQ(remote_.TakeReason(), "signal 6 (Aborted)");
    remote_.AwaitReady(2);
  }
  const PaintedPicture after = PaintTogether(remote_, kPictureModel, {neighbour}, 31)[0];
  EXPECT_EQ(after.pixels.rgb, undisturbed.pixels.rgb);
}

}  // namespace
}  // namespace hanmo
