// Picture steps that are interrupted: whatever happens at their yield points, pictures and texts
// are those of a lone run.
#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "workers/nn/parts.h"
#include "workers/testing/run_samples.h"
#include "workers/torch_executor.h"

namespace hanmo {
namespace {

using testing::PaintedPicture;
using testing::PaintTogether;
using testing::WriteTogether;
using testing::WrittenText;

constexpr char kFolder[] = "tests/goldens/pipelines/";
constexpr ModelId kPictures = 0, kTexts = 1;

// Runs the steps of another executor with `at_yield_point` at all of their yield points.
class InterruptedExecutor final : public Executor, private YieldListener {
 public:
  InterruptedExecutor(Executor* executor, std::function<bool()> at_yield_point)
      : executor_(executor), at_yield_point_(std::move(at_yield_point)) {}

  size_t yield_points() const { return yield_points_; }

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
    ++yield_points_;
    return at_yield_point_();
  }

  Executor* const executor_;
  const std::function<bool()> at_yield_point_;
  size_t yield_points_ = 0;
};

// libtorch's memory on the CPU, counted; on demand there is no more. One at a time.
class CountedMemory final : public c10::Allocator {
 public:
  CountedMemory() : inner_(c10::GetCPUAllocator()) {
    counting = this;
    c10::SetCPUAllocator(this, 1);
  }
  ~CountedMemory() override {
    c10::SetCPUAllocator(inner_, 1);
    counting = nullptr;
  }

  void Exhaust(bool exhausted) { exhausted_ = exhausted; }
  size_t bytes() const {
    size_t bytes = 0;
    for (const auto& [data, size] : sizes_) bytes += size;
    return bytes;
  }

  c10::DataPtr allocate(size_t size) override {
    if (exhausted_) TORCH_CHECK(false, "DefaultCPUAllocator: can't allocate memory");
    c10::DataPtr memory = inner_->allocate(size);
    free_inner = memory.get_deleter();
    sizes_[memory.get()] = size;
    void* const data = memory.release_context();
    return {data, data, &Free, c10::Device(c10::kCPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Free; }
  void copy_data(void* to, const void* from, size_t count) const override {
    default_copy_data(to, from, count);
  }

 private:
  static void Free(void* data) {
    if (counting != nullptr) counting->sizes_.erase(data);
    free_inner(data);
  }
  static inline CountedMemory* counting = nullptr;
  static inline c10::DeleterFnPtr free_inner = nullptr;

  c10::Allocator* const inner_;
  std::map<void*, size_t> sizes_;
  bool exhausted_ = false;
};

class SlicesTest : public ::testing::Test {
 protected:
  SlicesTest() : executor_(*ComputeDevice::Open("cpu")) { SetComputeThreads(1); }

  void LoadModel(ModelId model, const std::string& path) {
    LoadCommand load;
    load.model = model;
    load.path = path;
    absl::StatusOr<LoadedModel> loaded = executor_.Load(load);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
  }

  static PictureJob Picture(const std::string& folder, uint64_t seed) {
    const nlohmann::json prompts =
        nlohmann::json::parse(std::ifstream(absl::StrCat(kFolder, "golden.json"))).at("prompts");
    PictureJob job;
    job.prompt = prompts.at(folder).at("prompt").get<std::vector<uint32_t>>();
    job.negative_prompt = prompts.at(folder).at("negative_prompt").get<std::vector<uint32_t>>();
    job.width = 64;
    job.height = 48;
    job.sampler = "ddim";
    job.steps = 3;
    job.guidance = 4;
    job.seed = seed;
    return job;
  }
  static Step StepOf(StepKind kind, const std::vector<SampleHandle>& samples) {
    Step step = {1, kPictures, kind, {}, {}};
    for (SampleHandle sample : samples) step.rows.push_back({sample, 0, {}, false});
    return step;
  }

  TorchExecutor executor_;
};

TEST_F(SlicesTest, PicturesInterruptedEverywhereAreTheSamePictures) {
  for (const std::string folder : {"taiyi", "chinese_en", "anime"}) {
    LoadModel(kPictures, kFolder + folder);
    const std::vector<PictureJob> jobs = {Picture(folder, 1), Picture(folder, 2)};
    const std::vector<PaintedPicture> whole = PaintTogether(executor_, kPictures, jobs);
    for (const double divisor : {1.0, 1e6}) {
      const PartSizeScope smaller(divisor);
      InterruptedExecutor interrupted(&executor_, [] { return true; });
      const std::vector<PaintedPicture> sliced = PaintTogether(interrupted, kPictures, jobs);
      // 5 steps of many operators, and with small parts many for an operator.
      EXPECT_GT(interrupted.yield_points(), divisor > 1 ? 2000u : 500u) << folder;
      for (size_t i = 0; i < jobs.size(); ++i) {
        ASSERT_TRUE(whole[i].status.ok()) << whole[i].status;
        ASSERT_TRUE(sliced[i].status.ok()) << sliced[i].status;
        EXPECT_EQ(sliced[i].save_point, whole[i].save_point) << folder << " " << divisor;
        EXPECT_EQ(sliced[i].pixels.rgb, whole[i].pixels.rgb) << folder << " " << divisor;
      }
    }
  }
}

TEST_F(SlicesTest, TextsBetweenSlicesAreTheSameTextsAndThePictureTheSamePicture) {
  LoadModel(kPictures, absl::StrCat(kFolder, "taiyi"));
  LoadModel(kTexts, "tests/goldens/gpt2/wenzhong");
  const PictureJob picture = Picture("taiyi", 1);
  TextJob text;
  text.prompt = {5, 9, 2, 7};
  text.sampling.seed = 3;
  text.sampling.temperature = 1.2f;
  text.max_tokens = 40;
  const PaintedPicture picture_alone = PaintTogether(executor_, kPictures, {picture}, 100)[0];
  const WrittenText text_alone = WriteTogether(executor_, kTexts, {text})[0];
  ASSERT_EQ(text_alone.tokens.size(), 40u);

  std::vector<uint32_t> ids;
  executor_.Begin(1, kTexts, text, {});
  Row row = {1, 4, {0, 1, 2}, false};
  size_t point = 0;
  InterruptedExecutor interrupted(&executor_, [&] {
    if (++point % 3 != 0 || ids.size() == 40) return true;
    const StepResult result = executor_.Run({1, kTexts, StepKind::kText, {row}, {}});
    EXPECT_TRUE(result.status.ok()) << result.status;
    ids.push_back(result.rows.at(0).tokens.at(0).id);
    row = {1, 0, {}, false};
    return true;
  });
  const PaintedPicture sliced = PaintTogether(interrupted, kPictures, {picture}, 100)[0];
  EXPECT_EQ(sliced.pixels.rgb, picture_alone.pixels.rgb);
  ASSERT_EQ(ids.size(), 40u);
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(ids[i], text_alone.tokens[i].id) << i;
}

TEST_F(SlicesTest, SamplesMayBeginBeSavedAndBeDroppedMeanwhile) {
  LoadModel(kPictures, absl::StrCat(kFolder, "taiyi"));
  const std::vector<PictureJob> jobs = {Picture("taiyi", 1), Picture("taiyi", 2),
                                        Picture("taiyi", 3)};
  const std::vector<PaintedPicture> alone = PaintTogether(executor_, kPictures, jobs, 100);
  executor_.Begin(1, kPictures, jobs[0], {});
  executor_.Begin(2, kPictures, jobs[1], {});
  executor_.Run(StepOf(StepKind::kTextEncode, {1, 2}));
  ASSERT_EQ(executor_.Run(StepOf(StepKind::kDenoise, {1, 2})).rows[0].steps_done, 1u);
  const std::vector<SavePoint> before = executor_.Save({1, 2});

  int point = 0;
  InterruptedExecutor interrupted(&executor_, [&] {
    if (++point != 20) return true;
    const std::vector<SavePoint> during = executor_.Save({1, 2});
    EXPECT_EQ(during.at(0).steps_done, 1u);
    EXPECT_EQ(during.at(0).bytes, before.at(0).bytes);
    EXPECT_EQ(during.at(1).bytes, before.at(1).bytes);
    executor_.Drop({2});
    executor_.Begin(3, kPictures, jobs[2], {});
    return true;
  });
  const StepResult result = interrupted.Run(StepOf(StepKind::kDenoise, {1, 2}));
  ASSERT_GT(point, 20);
  ASSERT_TRUE(result.status.ok()) << result.status;
  EXPECT_EQ(result.rows[0].steps_done, 2u);
  EXPECT_EQ(result.rows[1].sample, 2u);
  EXPECT_EQ(result.rows[1].status.code(), absl::StatusCode::kNotFound);
  // The first goes on, the third is well.
  executor_.Run(StepOf(StepKind::kDenoise, {1}));
  executor_.Run(StepOf(StepKind::kTextEncode, {3}));
  for (int i = 0; i < 3; ++i) executor_.Run(StepOf(StepKind::kDenoise, {3}));
  const StepResult decoded = executor_.Run(StepOf(StepKind::kVaeDecode, {1, 3}));
  EXPECT_EQ(decoded.rows.at(0).picture.rgb, alone[0].pixels.rgb);
  EXPECT_EQ(decoded.rows.at(1).picture.rgb, alone[2].pixels.rgb);
}

TEST_F(SlicesTest, AnAbandonedStepFreesItsMemoryAndMayBeRunAgain) {
  LoadModel(kPictures, absl::StrCat(kFolder, "taiyi"));
  const PictureJob job = Picture("taiyi", 1);
  const PaintedPicture alone = PaintTogether(executor_, kPictures, {job}, 100)[0];
  executor_.Begin(1, kPictures, job, {});
  CountedMemory memory;
  size_t held = 0;
  int points = 0, abandon_at = 0;
  InterruptedExecutor interrupted(&executor_, [&] {
    if (++points < abandon_at) return true;
    held = memory.bytes();
    return false;
  });
  for (const StepKind kind : {StepKind::kTextEncode, StepKind::kDenoise, StepKind::kVaeDecode}) {
    for (int at : {1, 6, 11}) {
      abandon_at = at;
      points = 0;
      const size_t before = memory.bytes();
      const StepResult result = interrupted.Run(StepOf(kind, {1}));
      EXPECT_FALSE(result.status.ok());
      EXPECT_TRUE(result.rows.empty());
      EXPECT_EQ(points, abandon_at);
      EXPECT_GT(held, before);
      EXPECT_EQ(memory.bytes(), before);
    }
    const int times = kind == StepKind::kDenoise ? 3 : 1;
    StepResult result;
    for (int i = 0; i < times; ++i) result = executor_.Run(StepOf(kind, {1}));
    ASSERT_TRUE(result.status.ok()) << result.status;
    if (kind == StepKind::kVaeDecode) {
      EXPECT_EQ(result.rows[0].picture.rgb, alone.pixels.rgb);
    }
  }
  executor_.Drop({1});
}

TEST_F(SlicesTest, AnErrorInALaterSliceFailsTheStepAndNoRowAdvances) {
  LoadModel(kPictures, absl::StrCat(kFolder, "taiyi"));
  const PictureJob job = Picture("taiyi", 1);
  const PaintedPicture alone = PaintTogether(executor_, kPictures, {job}, 100)[0];
  executor_.Begin(1, kPictures, job, {});
  executor_.Run(StepOf(StepKind::kTextEncode, {1}));
  {
    CountedMemory memory;
    int points = 0;
    InterruptedExecutor interrupted(&executor_, [&] {
      if (++points == 30) memory.Exhaust(true);
      return true;
    });
    const StepResult result = interrupted.Run(StepOf(StepKind::kDenoise, {1}));
    memory.Exhaust(false);
    EXPECT_EQ(result.status.code(), absl::StatusCode::kResourceExhausted) << result.status;
    EXPECT_TRUE(result.rows.empty());
    EXPECT_GE(points, 30);
    executor_.Run(StepOf(StepKind::kDenoise, {1}));
    executor_.Run(StepOf(StepKind::kDenoise, {1}));
    EXPECT_EQ(executor_.Run(StepOf(StepKind::kDenoise, {1})).rows[0].steps_done, 3u);
    EXPECT_EQ(executor_.Run(StepOf(StepKind::kVaeDecode, {1})).rows[0].picture.rgb,
              alone.pixels.rgb);
    executor_.Drop({1});
  }
}

TEST_F(SlicesTest, TextStepsHaveNoYieldPoints) {
  LoadModel(kTexts, "tests/goldens/gpt2/wenzhong");
  InterruptedExecutor interrupted(&executor_, [] { return true; });
  TextJob text;
  text.prompt = {5, 9, 2, 7};
  text.max_tokens = 3;
  EXPECT_TRUE(WriteTogether(interrupted, kTexts, {text})[0].status.ok());
  EXPECT_EQ(interrupted.yield_points(), 0u);
}

}  // namespace
}  // namespace hanmo
