// The fleet against real processes: hanmo-worker's own link code with a scripted executor.
#include "server/worker_link/fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/worker_link/child.h"

namespace hanmo {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr absl::Duration kPatience = absl::Seconds(60);

// Records everything the fleet says, one line an event.
class Recorder : public WorkerEvents, public FleetObserver {
 public:
  void AddWorker(WorkerId worker, std::shared_ptr<WorkerLink> link) override {
    absl::MutexLock lock(&mu_);
    link_ = link;
    ++lives_;
    log_.push_back(absl::StrCat("add ", worker));
  }
  void ModelReady(WorkerId worker, ModelId model, ModelCapacity capacity) override {
    Log(absl::StrCat("ready ", worker, "/", model, " pages ", capacity.pages));
  }
  void ModelFailed(ModelId model) override { Log(absl::StrCat("failed ", model)); }
  void StepDone(WorkerId worker, StepResult result) override {
    absl::MutexLock lock(&mu_);
    steps_.push_back(std::move(result));
  }
  void Saved(WorkerId worker, SavePoint save_point) override {
    absl::MutexLock lock(&mu_);
    saved_.push_back(std::move(save_point));
  }
  void WorkerLost(WorkerId worker) override { Log(absl::StrCat("lost ", worker)); }

  void OnModelLoaded(WorkerId worker, ModelId model, const LoadedModel& loaded) override {
    Log(absl::StrCat("loaded ", worker, "/", model, " ", loaded.architecture, " ", loaded.dtype));
  }
  void OnModelFailed(WorkerId worker, ModelId model, const absl::Status& status) override {
    Log(absl::StrCat("model failed ", worker, "/", model, ": ", status.message()));
  }
  void OnWorkerUp(WorkerId worker, const std::string& device, uint64_t) override {
    Log(absl::StrCat("up ", worker, " on ", device));
  }
  void OnWorkerLost(WorkerId worker, const std::string& reason) override {
    Log(absl::StrCat("end ", worker, ": ", reason));
  }

  // Waits until an entry equals `line`, and forgets it and what came before.
  void Await(const std::string& line) {
    absl::MutexLock lock(&mu_);
    auto seen = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
      return std::find(log_.begin(), log_.end(), line) != log_.end();
    };
    ASSERT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&seen), kPatience))
        << line << " after " << ::testing::PrintToString(log_);
    log_.erase(log_.begin(), std::find(log_.begin(), log_.end(), line) + 1);
  }
  std::vector<StepResult> AwaitSteps(size_t count) {
    absl::MutexLock lock(&mu_);
    auto seen = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return steps_.size() >= count; };
    EXPECT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&seen), kPatience));
    return std::exchange(steps_, {});
  }
  std::vector<SavePoint> AwaitSaved(size_t count) {
    absl::MutexLock lock(&mu_);
    auto seen = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return saved_.size() >= count; };
    EXPECT_TRUE(mu_.AwaitWithTimeout(absl::Condition(&seen), kPatience));
    return std::exchange(saved_, {});
  }
  std::shared_ptr<WorkerLink> link() {
    absl::MutexLock lock(&mu_);
    return link_;
  }
  std::vector<std::string> log() {
    absl::MutexLock lock(&mu_);
    return log_;
  }

 private:
  void Log(std::string line) {
    absl::MutexLock lock(&mu_);
    log_.push_back(std::move(line));
  }

  absl::Mutex mu_;
  std::vector<std::string> log_ ABSL_GUARDED_BY(mu_);
  std::vector<StepResult> steps_ ABSL_GUARDED_BY(mu_);
  std::vector<SavePoint> saved_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<WorkerLink> link_ ABSL_GUARDED_BY(mu_);
  int lives_ ABSL_GUARDED_BY(mu_) = 0;
};

FleetOptions Spawning() {
  FleetOptions options;
  options.worker_program = HANMO_SCRIPTED_WORKER;
  options.devices = {"cpu"};
  options.min_backoff = absl::Milliseconds(1);
  return options;
}

std::vector<FleetModel> Models(const std::vector<std::string>& paths) {
  std::vector<FleetModel> models;
  for (const std::string& path : paths) {
    models.push_back({static_cast<ModelId>(models.size()), path, path});
  }
  return models;
}

// Direct children of this process.
std::vector<pid_t> Children() {
  std::vector<pid_t> children;
  for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
    std::ifstream file(task.path() / "children");
    for (pid_t pid; file >> pid;) children.push_back(pid);
  }
  return children;
}

PictureJob Picture(uint64_t seed) {
  PictureJob job;
  job.prompt = {1};
  job.width = job.height = 16;
  job.steps = 4;
  job.seed = seed;
  return job;
}

Step Denoise(uint64_t id, SampleHandle sample) {
  return {id, 0, StepKind::kDenoise, {{sample, 0, {}, false}}};
}

TEST(FleetTest, LoadsEveryModelAndCarriesStepsInOrder) {
  Recorder recorder;
  Fleet fleet(Spawning(), Models({"text", "picture"}), &recorder, &recorder);
  ASSERT_TRUE(fleet.Start().ok());
  recorder.Await("up 0 on cpu");
  recorder.Await("add 0");
  // Who is told that a model is served must not be refused.
  recorder.Await("ready 0/0 pages 8");
  recorder.Await("loaded 0/0 text float32");
  recorder.Await("ready 0/1 pages 0");

  TextJob text;
  text.prompt = {40};
  text.max_tokens = 3;
  recorder.link()->Begin(1, 0, text, {{40}, ""});
  for (uint64_t id = 1; id <= 3; ++id) {
    recorder.link()->Run({id, 0, StepKind::kText, {{1, 0, {}, false}}});
  }
  std::vector<StepResult> steps = recorder.AwaitSteps(3);
  ASSERT_EQ(steps.size(), 3u);
  EXPECT_EQ(steps[0].rows[0].tokens[0].id, 41u);  // one token was emitted before
  EXPECT_EQ(steps[1].rows[0].tokens[0].id, 42u);
  EXPECT_EQ(steps[2].step, 3u);
  EXPECT_TRUE(steps[2].rows[0].skipped);

  recorder.link()->Drop({1});
  recorder.link()->Run({4, 0, StepKind::kText, {{1, 0, {}, false}}});
  EXPECT_EQ(recorder.AwaitSteps(1)[0].rows[0].status.code(), absl::StatusCode::kNotFound);
}

TEST(FleetTest, CarriesPicturesLargerThanTheDefaultMessageLimit) {
  Recorder recorder;
  Fleet fleet(Spawning(), Models({"picture"}), &recorder, &recorder);
  ASSERT_TRUE(fleet.Start().ok());
  recorder.Await("ready 0/0 pages 0");
  PictureJob job = Picture(1);
  job.width = job.height = 2048;
  recorder.link()->Begin(1, 0, job, {});
  recorder.link()->Run({1, 0, StepKind::kVaeDecode, {{1, 0, {}, true}}});
  const RowResult row = recorder.AwaitSteps(1)[0].rows[0];
  EXPECT_EQ(row.picture.width, 2048u);
  EXPECT_EQ(row.picture.height, 2048u);
  EXPECT_EQ(row.preview.rgb, "abcdef");
}

TEST(FleetTest, BringsAKilledWorkerBackAndContinuesFromTheSavePoint) {
  Recorder recorder;
  Fleet fleet(Spawning(), Models({"picture"}), &recorder, &recorder);
  ASSERT_TRUE(fleet.Start().ok());
  recorder.Await("ready 0/0 pages 0");
  recorder.link()->Begin(1, 0, Picture(1), {});
  recorder.link()->Run(Denoise(1, 1));
  recorder.link()->Run(Denoise(2, 1));
  recorder.link()->Save({1});
  const SavePoint save_point = recorder.AwaitSaved(1)[0];
  EXPECT_EQ(save_point.steps_done, 2u);
  recorder.AwaitSteps(2);

  const std::shared_ptr<WorkerLink> old_link = recorder.link();
  ASSERT_EQ(Children().size(), 1u);
  ASSERT_EQ(kill(Children()[0], SIGKILL), 0);
  recorder.Await("lost 0");
  recorder.Await("end 0: signal 9 (Killed)");
  recorder.Await("ready 0/0 pages 0");
  EXPECT_NE(recorder.link(), old_link);
  old_link->Run(Denoise(3, 1));  // does nothing

  recorder.link()->Begin(2, 0, Picture(1), {{}, save_point.bytes});
  recorder.link()->Run(Denoise(4, 2));
  const StepResult result = recorder.AwaitSteps(1)[0];
  EXPECT_EQ(result.step, 4u);
  EXPECT_EQ(result.rows[0].steps_done, 3u);
}

TEST(FleetTest, ReportsAWorkerThatAbortsOnAPoisonedSample) {
  Recorder recorder;
  FleetOptions options = Spawning();
  options.worker_args = {"--fault=abort-on-seed:666@step:2", "--log-level=error"};
  Fleet fleet(options, Models({"picture"}), &recorder, &recorder);
  ASSERT_TRUE(fleet.Start().ok());
  recorder.Await("ready 0/0 pages 0");
  recorder.link()->Begin(1, 0, Picture(665), {});
  recorder.link()->Begin(2, 0, Picture(666), {});
  for (uint64_t id = 1; id <= 3; ++id) recorder.link()->Run(Denoise(id, 1));
  recorder.link()->Run(Denoise(4, 2));
  EXPECT_EQ(recorder.AwaitSteps(4).size(), 4u);
  recorder.link()->Run(Denoise(5, 2));
  recorder.Await("end 0: signal 6 (Aborted)");
  recorder.Await("ready 0/0 pages 0");
}

TEST(FleetTest, ABadCheckpointFailsOnceAndTheOthersServe) {
  Recorder recorder;
  Fleet fleet(Spawning(), Models({"bad", "text"}), &recorder, &recorder);
  ASSERT_TRUE(fleet.Start().ok());
  recorder.Await("model failed 0/0: tensor wte.weight: torn");
  recorder.Await("failed 0");
  recorder.Await("loaded 0/1 text float32");
  kill(Children()[0], SIGKILL);
  recorder.Await("loaded 0/1 text float32");
  EXPECT_THAT(recorder.log(), IsEmpty());
}

TEST(FleetTest, ACheckpointThatKillsTheWorkerIsGivenUpAfterThreeDeaths) {
  Recorder recorder;
  FleetOptions options = Spawning();
  options.max_backoff = absl::Milliseconds(1);
  Fleet fleet(options, Models({"text", "crash"}), &recorder, &recorder);
  ASSERT_TRUE(fleet.Start().ok());
  recorder.Await("lost 0");
  recorder.Await("lost 0");
  recorder.Await("lost 0");
  recorder.Await(
      "model failed 0/1: the worker died 3 times while loading it, last: signal 6 (Aborted)");
  recorder.Await("failed 1");
  recorder.Await("ready 0/0 pages 8");
}

TEST(FleetTest, AModelFailsForTheBatcherOnlyWhenNoWorkerHasIt) {
  Recorder recorder;
  FleetOptions options = Spawning();
  options.devices = {"cpu", "cpu"};
  Fleet fleet(options, Models({"bad", "text"}), &recorder, &recorder);
  ASSERT_TRUE(fleet.Start().ok());
  recorder.Await("failed 0");
  EXPECT_THAT(recorder.log(), ::testing::Not(Contains("failed 0")));
}

TEST(FleetTest, EndsItsWorkersWhenItIsDestroyed) {
  Recorder recorder;
  {
    FleetOptions options = Spawning();
    options.devices = {"cpu", "cpu"};
    Fleet fleet(options, Models({"text"}), &recorder, &recorder);
    ASSERT_TRUE(fleet.Start().ok());
    recorder.Await("ready 0/0 pages 8");
    // The other may still be starting.
    const absl::Time end = absl::Now() + kPatience;
    while (Children().size() < 2 && absl::Now() < end) std::this_thread::yield();
    ASSERT_EQ(Children().size(), 2u);
  }
  EXPECT_THAT(Children(), IsEmpty());
  EXPECT_THAT(recorder.log(), ::testing::Not(Contains(HasSubstr("end "))));
}

TEST(SpawnedWorkerTest, EndsWithItsServerAlsoBeforeThereIsAStream) {
  auto child = Child::Spawn(HANMO_SCRIPTED_WORKER,
                            {absl::StrCat("--fd=", Child::kChildFd), "--log-level=error"});
  ASSERT_TRUE(child.ok()) << child.status();
  close((*child)->TakeSocket());
  EXPECT_EQ((*child)->Wait(), "exit code 0");
}

class AttachTest : public ::testing::Test {
 protected:
  AttachTest()
      : folder_(std::filesystem::temp_directory_path() / absl::StrCat("hanmo-fleet-", getpid())) {
    std::filesystem::create_directories(folder_);
    options_.attach = {absl::StrCat("unix:", (folder_ / "worker.sock").string())};
    options_.min_backoff = options_.max_backoff = absl::Milliseconds(5);
  }
  ~AttachTest() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<Child> StartWorker() {
    auto child = Child::Spawn(HANMO_SCRIPTED_WORKER,
                              {"--listen=" + options_.attach[0], "--log-level=error"});
    EXPECT_TRUE(child.ok());
    return *std::move(child);
  }

  const std::filesystem::path folder_;
  FleetOptions options_;
  Recorder recorder_;
};

TEST_F(AttachTest, WaitsForTheWorkerAndFindsItsSuccessor) {
  Fleet fleet(options_, Models({"text"}), &recorder_, &recorder_);
  ASSERT_TRUE(fleet.Start().ok());
  std::unique_ptr<Child> worker = StartWorker();
  recorder_.Await("ready 0/0 pages 8");
  worker->Signal(SIGKILL);
  EXPECT_EQ(worker->Wait(), "signal 9 (Killed)");
  recorder_.Await("lost 0");
  worker = StartWorker();
  recorder_.Await("ready 0/0 pages 8");
  worker->Signal(SIGTERM);
  EXPECT_EQ(worker->Wait(), "exit code 0");
}

TEST_F(AttachTest, TheWorkerOutlivesTheServerAndServesTheNextWithoutOldSamples) {
  std::unique_ptr<Child> worker = StartWorker();
  {
    Fleet first(options_, Models({"picture"}), &recorder_, &recorder_);
    ASSERT_TRUE(first.Start().ok());
    recorder_.Await("ready 0/0 pages 0");
    recorder_.link()->Begin(1, 0, Picture(1), {});
    recorder_.link()->Run(Denoise(1, 1));
    EXPECT_TRUE(recorder_.AwaitSteps(1)[0].rows[0].status.ok());
  }
  Fleet second(options_, Models({"picture"}), &recorder_, &recorder_);
  ASSERT_TRUE(second.Start().ok());
  recorder_.Await("ready 0/0 pages 0");
  recorder_.link()->Run(Denoise(1, 1));
  EXPECT_EQ(recorder_.AwaitSteps(1)[0].rows[0].status.code(), absl::StatusCode::kNotFound);
}

TEST_F(AttachTest, TheSocketIsForTheSameUserAlone) {
  std::unique_ptr<Child> worker = StartWorker();
  Fleet fleet(options_, Models({"text"}), &recorder_, &recorder_);
  ASSERT_TRUE(fleet.Start().ok());
  recorder_.Await("ready 0/0 pages 8");
  using std::filesystem::perms;
  EXPECT_EQ(std::filesystem::status(folder_ / "worker.sock").permissions(),
            perms::owner_read | perms::owner_write);
}

TEST(FleetOptionsTest, StartNamesWhatCannotWork) {
  Recorder recorder;
  auto start = [&](FleetOptions options) {
    return Fleet(options, {}, &recorder, &recorder).Start();
  };
  EXPECT_EQ(start({}).code(), absl::StatusCode::kInvalidArgument);
  FleetOptions options = Spawning();
  options.worker_program = "/nonexistent/hanmo-worker";
  EXPECT_EQ(start(options).code(), absl::StatusCode::kNotFound);
  for (const char* address :
       {"", "unix:", "worker", "host:0", "host:70000", "tls:host", ":5000", "10.0.0.1:5000"}) {
    FleetOptions attach;
    attach.attach = {address};
    EXPECT_EQ(start(attach).code(), absl::StatusCode::kInvalidArgument) << address;
  }
  FleetOptions tls;
  tls.attach = {"tls:127.0.0.1:1"};
  tls.tls_certificate_file = "cert.pem";
  EXPECT_THAT(std::string(start(tls).message()), HasSubstr("both or neither"));
}

}  // namespace
}  // namespace hanmo
