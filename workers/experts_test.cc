// Mixtures of denoising experts, see tests/goldens/ernie_vilg2/generate.py.
#include "workers/experts.h"

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/testing/run_samples.h"
#include "workers/torch_executor.h"

namespace hanmo {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kFolder[] = "tests/goldens/ernie_vilg2/";

const nlohmann::json& Goldens() {
  static const auto& goldens = *new nlohmann::json(
      nlohmann::json::parse(std::ifstream(absl::StrCat(kFolder, "golden.json"))));
  return goldens.at("cases");
}

PictureJob JobOf(const std::string& name) {
  const nlohmann::json& entry = Goldens().at(name);
  PictureJob job;
  job.prompt = entry.at("prompt").get<std::vector<uint32_t>>();
  job.negative_prompt = entry.at("negative_prompt").get<std::vector<uint32_t>>();
  job.width = 8 * entry.at("width").get<uint32_t>();
  job.height = 8 * entry.at("height").get<uint32_t>();
  job.steps = entry.at("steps");
  job.guidance = entry.at("guidance");
  job.seed = entry.at("seed");
  return job;
}

class ExpertsTest : public ::testing::Test {
 protected:
  void SetUp() override { SetComputeThreads(1); }

  absl::StatusOr<LoadedModel> Load(const std::string& folder, uint64_t expert_bytes = 0) {
    LoadCommand load;
    load.path = folder;
    load.expert_bytes = expert_bytes;
    return executor_.Load(load);
  }

  RowResult Run(StepKind kind, const std::vector<SampleHandle>& samples, absl::Status* status) {
    Step step = {1, 0, kind, {}};
    for (const SampleHandle sample : samples) step.rows.push_back({sample, 0, {}, false});
    StepResult result = executor_.Run(step);
    *status = result.status;
    return result.rows.empty() ? RowResult() : std::move(result.rows[0]);
  }
  RowResult Run(StepKind kind, SampleHandle sample) {
    absl::Status status;
    RowResult row = Run(kind, {sample}, &status);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(row.status.ok()) << row.status;
    return row;
  }
  std::string Save(SampleHandle sample) { return executor_.Save({sample}).at(0).bytes; }

  // A copy of a golden folder, to be broken.
  fs::path Copy(const std::string& name) {
    const fs::path copy = fs::path(::testing::TempDir()) / "experts_test";
    fs::remove_all(copy);
    fs::copy(kFolder + name, copy, fs::copy_options::recursive);
    return copy;
  }
  void ExpectRefused(const fs::path& folder, const std::string& message) {
    EXPECT_THAT(std::string(Load(folder).status().message()), HasSubstr(message));
  }

  TorchExecutor executor_ = TorchExecutor(*ComputeDevice::Open("cpu"));
};

// The latent that a save point holds; its format is documented in save_point.h.
at::Tensor LatentOf(const std::string& save_point, at::IntArrayRef shape) {
  constexpr size_t kHeaderBytes = 4 + 4 + 8 + 8 + 8 + 6 * 4;
  return at::from_blob(const_cast<char*>(save_point.data()) + kHeaderBytes, shape, at::kFloat)
      .clone();
}

TEST_F(ExpertsTest, EveryLatentIsThatOfALoopOverDiffusers) {
  c10::InferenceMode inference;
  Checkpoint goldens = *Checkpoint::OpenFile(absl::StrCat(kFolder, "golden.safetensors"));
  for (const char* name : {"two", "three"}) {
    ASSERT_TRUE(Load(kFolder + std::string(name)).ok());
    const PictureJob job = JobOf(name);
    const std::vector<int64_t> shape = {4, job.height / 8, job.width / 8};
    const at::Tensor expected = *goldens.Take(name, {job.steps + 1, 4, shape[1], shape[2]});
    executor_.Begin(1, 0, job, {});
    Run(StepKind::kTextEncode, 1);
    double worst = 0;
    for (uint32_t step = 0; step <= job.steps; ++step) {
      const at::Tensor error = (LatentOf(Save(1), shape) - expected[step]).abs().max();
      worst = std::max(worst, (error / expected[step].abs().max()).item<double>());
      if (step < job.steps) Run(StepKind::kDenoise, 1);
    }
    EXPECT_LE(worst, 1e-4) << name;
    printf("%s: relative error %.1e at most over %u latents\n", name, worst, job.steps + 1);
    executor_.Drop({1});
  }
}

TEST_F(ExpertsTest, TellsWhichCallsNeedWhichExpert) {
  const auto loaded = Load(absl::StrCat(kFolder, "three"));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->architecture, "ErnieViLG2Pipeline");
  EXPECT_EQ(loaded->default_sampler, "ddim");
  EXPECT_EQ(loaded->resident_experts, 3u);
  ASSERT_EQ(loaded->experts.size(), 3u);
  EXPECT_EQ(loaded->experts[0].name, "unet_02");
  EXPECT_EQ(loaded->experts[0].t_min, 701u);
  EXPECT_EQ(loaded->experts[2].t_max, 120u);
  executor_.Begin(1, 0, JobOf("three"), {});
  // Trailing: 999, 922, 845, 768, 691 …, 153, 76.
  EXPECT_THAT(Run(StepKind::kTextEncode, 1).variants,
              ElementsAre(VariantChange{0, 0}, VariantChange{4, 1}, VariantChange{12, 2}));
}

TEST_F(ExpertsTest, EveryBudgetPaintsTheSame) {
  const auto all = Load(absl::StrCat(kFolder, "three"));
  ASSERT_TRUE(all.ok()) << all.status();
  const std::vector<PictureJob> jobs = {JobOf("three")};
  const auto expected = testing::PaintTogether(executor_, 0, jobs)[0];
  ASSERT_TRUE(expected.status.ok()) << expected.status;
  std::vector<uint64_t> weights;
  for (const uint64_t budget : {uint64_t{1}, all->weight_bytes, 10 * all->weight_bytes}) {
    const auto loaded = Load(absl::StrCat(kFolder, "three"), budget);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    weights.push_back(loaded->weight_bytes);
    for (int pass = 0; pass < 3; ++pass) {
      const auto found = testing::PaintTogether(executor_, 0, jobs)[0];
      ASSERT_TRUE(found.status.ok()) << found.status;
      EXPECT_EQ(found.pixels.rgb, expected.pixels.rgb) << budget;
      EXPECT_EQ(found.save_point, expected.save_point) << budget;
    }
  }
  // One expert, and all of them.
  const uint64_t expert = (weights[2] - weights[0]) / 2;
  EXPECT_EQ(weights[1], weights[2]);
  ASSERT_TRUE(Load(absl::StrCat(kFolder, "three"), 2 * expert + expert / 2).ok());
  const auto two = Load(absl::StrCat(kFolder, "three"), 2 * expert + expert / 2);
  EXPECT_EQ(two->resident_experts, 2u);
  EXPECT_EQ(two->weight_bytes, weights[0] + expert);
  EXPECT_EQ(testing::PaintTogether(executor_, 0, jobs)[0].pixels.rgb, expected.pixels.rgb);
}

TEST_F(ExpertsTest, PicturesShareTheStepsOfOneExpertOnly) {
  ASSERT_TRUE(Load(absl::StrCat(kFolder, "two"), 1).ok());
  PictureJob job = JobOf("two");
  const auto lone = testing::PaintTogether(executor_, 0, {job})[0];
  executor_.Begin(11, 0, job, {});
  executor_.Begin(12, 0, job, {});
  absl::Status status;
  Run(StepKind::kTextEncode, {11, 12}, &status);
  ASSERT_TRUE(status.ok());
  // Seven of ten calls need the first expert; the samples are two calls apart.
  for (int i = 0; i < 2; ++i) Run(StepKind::kDenoise, 11);
  for (int i = 0; i < 4; ++i) {
    Run(StepKind::kDenoise, {11, 12}, &status);
    ASSERT_TRUE(status.ok()) << status;
  }
  while (status.ok()) Run(StepKind::kDenoise, {11, 12}, &status);
  EXPECT_EQ(status.message(), "step.rows: pictures of different experts in one step");
  // It advanced nobody.
  for (const SampleHandle sample : {11, 12}) {
    while (true) {
      const RowResult row = Run(StepKind::kDenoise, sample);
      if (row.steps_done == row.steps_total) break;
    }
    EXPECT_EQ(Save(sample), lone.save_point) << sample;
  }
}

TEST_F(ExpertsTest, GoesOnFromASavePointWithTheExpertOfItsPlace) {
  ASSERT_TRUE(Load(absl::StrCat(kFolder, "three")).ok());
  const PictureJob job = JobOf("three");
  const auto whole = testing::PaintTogether(executor_, 0, {job})[0];
  executor_.Begin(11, 0, job, {});
  const RowResult encoded = Run(StepKind::kTextEncode, 11);
  for (int i = 0; i < 5; ++i) Run(StepKind::kDenoise, 11);
  Resume resume;
  resume.save_point = Save(11);
  ASSERT_TRUE(Load(absl::StrCat(kFolder, "three"), 1).ok());
  executor_.Begin(12, 0, job, resume);
  const RowResult again = Run(StepKind::kTextEncode, 12);
  EXPECT_EQ(again.steps_done, 5u);
  EXPECT_EQ(again.variants, encoded.variants);
  for (int i = 5; i < 13; ++i) Run(StepKind::kDenoise, 12);
  EXPECT_EQ(Save(12), whole.save_point);
}

TEST_F(ExpertsTest, AFolderThatIsGoneByNowEndsTheStep) {
  const fs::path copy = Copy("three");
  ASSERT_TRUE(Load(copy, 1).ok());
  fs::rename(copy / "unet_01", copy / "away");
  executor_.Begin(1, 0, JobOf("three"), {});
  Run(StepKind::kTextEncode, 1);
  for (int i = 0; i < 4; ++i) Run(StepKind::kDenoise, 1);
  absl::Status status;
  Run(StepKind::kDenoise, {1}, &status);
  EXPECT_THAT(std::string(status.message()), HasSubstr("unet_01: not a folder"));
  fs::rename(copy / "away", copy / "unet_01");
  Run(StepKind::kDenoise, 1);
}

TEST_F(ExpertsTest, FaultyFoldersAreNamed) {
  fs::path copy = Copy("two");
  fs::remove_all(copy / "low");
  ExpectRefused(copy, "low: not a folder");

  copy = Copy("two");
  fs::remove(copy / "low/diffusion_pytorch_model.safetensors");
  ExpectRefused(copy, "low: no weights");

  copy = Copy("two");
  fs::copy(absl::StrCat(kFolder, "three/unet_00/diffusion_pytorch_model.safetensors"),
           copy / "low/diffusion_pytorch_model.safetensors", fs::copy_options::overwrite_existing);
  ExpectRefused(copy, "low: tensor ");

  copy = Copy("two");
  nlohmann::json config = nlohmann::json::parse(std::ifstream(copy / "low/config.json"));
  config["norm_eps"] = 0.5;
  std::ofstream(copy / "low/config.json") << config;
  ExpectRefused(copy, "low/config.json: norm_eps differs from high's");

  copy = Copy("three");
  fs::remove(copy / "unet_01/config.json");
  ExpectRefused(copy, "unet_02: config.json is missing");

  copy = Copy("two");
  nlohmann::json index = nlohmann::json::parse(std::ifstream(copy / "model_index.json"));
  index["experts"][0]["t_max"] = 299;
  std::ofstream(copy / "model_index.json") << index;
  ExpectRefused(copy, "none has the timesteps 299 to 299, between low and high");
}

}  // namespace
}  // namespace hanmo
