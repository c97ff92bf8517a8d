// The executor on tiny pipelines: company, save points, and bad rows beside good ones.
#include "workers/torch_executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/str_cat.h"
#include "workers/testing/run_samples.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using testing::PaintedPicture;
using testing::PaintTogether;

constexpr char kFolder[] = "tests/goldens/pipelines/";

class TorchExecutorTest : public ::testing::Test {
 protected:
  static std::unique_ptr<TorchExecutor> MakeExecutor() {
    SetComputeThreads(1);
    return std::make_unique<TorchExecutor>(*ComputeDevice::Open("cpu"));
  }
  static LoadCommand Command(ModelId model, const std::string& path) {
    LoadCommand load;
    load.model = model;
    load.path = path;
    return load;
  }
};

PictureJob Picture(const std::string& folder, const std::string& sampler, uint64_t seed) {
  static const nlohmann::json prompts =
      nlohmann::json::parse(std::ifstream(absl::StrCat(kFolder, "golden.json"))).at("prompts");
  PictureJob job;
  job.prompt = prompts.at(folder).at("prompt").get<std::vector<uint32_t>>();
  job.negative_prompt = prompts.at(folder).at("negative_prompt").get<std::vector<uint32_t>>();
  job.width = 32;
  job.height = 48;
  job.sampler = sampler;
  job.steps = 4 + seed % 3;
  job.guidance = seed % 4 == 3 ? 1.0f : 2.5f + seed % 5;
  if (job.guidance <= 1) job.negative_prompt.clear();
  job.seed = seed;
  return job;
}

// Pictures that differ in everything but the size.
std::vector<PictureJob> MixedPictures(const std::string& folder,
                                      const std::vector<std::string>& samplers) {
  std::vector<PictureJob> jobs;
  for (size_t i = 0; i < samplers.size(); ++i) {
    jobs.push_back(Picture(folder, samplers[i], 11 + i));
    jobs.back().prompt[1] = 6 + i;
  }
  return jobs;
}

TEST_F(TorchExecutorTest, ReportsWhatAPictureModelCanDo) {
  auto executor = MakeExecutor();
  absl::StatusOr<LoadedModel> loaded = executor->Load(Command(0, absl::StrCat(kFolder, "taiyi")));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->architecture, "StableDiffusionPipeline");
  EXPECT_EQ(loaded->dtype, "float32");
  EXPECT_EQ(loaded->latent_factor, 8u);
  EXPECT_EQ(loaded->latent_channels, 4u);
  EXPECT_EQ(loaded->prompt_tokens, 512u);
  EXPECT_EQ(loaded->default_size, 128u);
  EXPECT_EQ(loaded->default_sampler, "pndm");
  EXPECT_EQ(loaded->samplers.size(), 7u);
  EXPECT_GT(loaded->weight_bytes, 100'000u);

  // It predicts the sample, which these two can't use.
  absl::StatusOr<LoadedModel> anime = executor->Load(Command(1, absl::StrCat(kFolder, "anime")));
  ASSERT_TRUE(anime.ok()) << anime.status();
  EXPECT_THAT(anime->samplers, ::testing::ElementsAre("ddim", "euler", "dpmpp_2m", "lcm", "unipc"));
  EXPECT_EQ(anime->latent_factor, 2u);
  EXPECT_EQ(anime->prompt_tokens, 48u);
}

TEST_F(TorchExecutorTest, APictureDoesNotDependOnItsCompany) {
  auto executor = MakeExecutor();
  for (const std::string folder : {"taiyi", "chinese_en"}) {
    ASSERT_TRUE(executor->Load(Command(0, kFolder + folder)).ok());
    const std::vector<PictureJob> jobs = MixedPictures(
        folder, {"ddim", "pndm", "euler", "euler_a", "dpmpp_2m", "lcm", "unipc", "ddim"});
    const std::vector<PaintedPicture> together = PaintTogether(*executor, 0, jobs);
    for (size_t i = 0; i < jobs.size(); ++i) {
      const PaintedPicture alone = PaintTogether(*executor, 0, {jobs[i]})[0];
      ASSERT_TRUE(alone.status.ok()) << alone.status;
      ASSERT_TRUE(together[i].status.ok()) << together[i].status;
      // The save point holds the latent in float32: equal bits, not only equal pixels.
      EXPECT_EQ(alone.save_point, together[i].save_point) << folder << " " << jobs[i].sampler;
      EXPECT_EQ(alone.pixels.rgb, together[i].pixels.rgb) << folder << " " << jobs[i].sampler;
      EXPECT_EQ(alone.pixels.rgb.size(), 3u * 32 * 48);
      if (i > 0) {
        EXPECT_NE(alone.pixels.rgb, together[0].pixels.rgb);
      }
    }
  }
}

TEST_F(TorchExecutorTest, APictureGoesOnFromASavePointInAnotherWorkerWithTheSameBytes) {
  const std::string path = absl::StrCat(kFolder, "taiyi");
  for (const std::string sampler : {"pndm", "euler_a", "dpmpp_2m", "lcm", "unipc"}) {
    PictureJob job = Picture("taiyi", sampler, 7);
    job.steps = 5;
    auto first = MakeExecutor();
    ASSERT_TRUE(first->Load(Command(0, path)).ok());
    const PaintedPicture undisturbed = PaintTogether(*first, 0, {job})[0];

    first->Begin(9, 0, job, {});
    const auto step = [](StepKind kind) { return Step{1, 0, kind, {{9, 0, {}, false}}}; };
    first->Run(step(StepKind::kTextEncode));
    for (int i = 0; i < 3; ++i) first->Run(step(StepKind::kDenoise));
    const std::vector<SavePoint> saved = first->Save({9, 1234});
    ASSERT_EQ(saved.size(), 1u);
    EXPECT_EQ(saved[0].steps_done, 3u);

    auto second = MakeExecutor();
    ASSERT_TRUE(second->Load(Command(0, path)).ok());
    second->Begin(9, 0, job, {{}, saved[0].bytes});
    RowResult row = second->Run(step(StepKind::kTextEncode)).rows[0];
    ASSERT_TRUE(row.status.ok()) << row.status;
    EXPECT_EQ(row.steps_done, 3u);
    while (row.steps_done < row.steps_total) row = second->Run(step(StepKind::kDenoise)).rows[0];
    EXPECT_TRUE(second->Run(step(StepKind::kDenoise)).rows[0].skipped);
    row = second->Run(step(StepKind::kVaeDecode)).rows[0];
    EXPECT_EQ(row.picture.rgb, undisturbed.pixels.rgb) << sampler;
  }
}

TEST_F(TorchExecutorTest, AModelIsReadBesideTheStepsOfAnotherWithTheSameBytes) {
  auto executor = MakeExecutor();
  ASSERT_TRUE(executor->Load(Command(0, absl::StrCat(kFolder, "taiyi"))).ok());
  const LoadCommand anime = Command(1, absl::StrCat(kFolder, "anime"));
  const PictureJob job = Picture("taiyi", "ddim", 4);
  const PaintedPicture alone = PaintTogether(*executor, 0, {job})[0];
  ASSERT_TRUE(executor->Load(anime).ok());
  const PictureJob other = Picture("anime", "ddim", 4);
  const PaintedPicture expected = PaintTogether(*executor, 1, {other})[0];

  const std::function<void()> reading = executor->Reading(anime);
  ASSERT_NE(reading, nullptr);
  std::thread thread(reading);
  EXPECT_EQ(PaintTogether(*executor, 0, {job})[0].pixels.rgb, alone.pixels.rgb);
  thread.join();
  ASSERT_TRUE(executor->Load(anime).ok());
  EXPECT_EQ(PaintTogether(*executor, 1, {other})[0].pixels.rgb, expected.pixels.rgb);

  // What was read in vain is forgotten.
  executor->Reading(anime)();
  executor->Unload(1);
  EXPECT_FALSE(PaintTogether(*executor, 1, {other})[0].status.ok());
}

TEST_F(TorchExecutorTest, ABadSampleFailsAloneAndNamesTheField) {
  auto executor = MakeExecutor();
  ASSERT_TRUE(executor->Load(Command(0, absl::StrCat(kFolder, "taiyi"))).ok());
  const PictureJob good = Picture("taiyi", "ddim", 4);
  std::vector<PictureJob> jobs(9, good);
  jobs[1].width = 36;
  jobs[2].sampler = "heun";
  jobs[3].steps = 0;
  jobs[4].prompt[0] = 99999;
  jobs[5].negative_prompt.pop_back();
  jobs[6].guidance = std::numeric_limits<float>::infinity();
  jobs[7].prompt.clear();
  jobs[8].score_prompt = {1};
  const std::vector<PaintedPicture> pictures = PaintTogether(*executor, 0, jobs);
  const char* named[] = {"",         "size",   "sampler",     "steps", "prompt", "negative_prompt",
                         "guidance", "prompt", "score_prompt"};
  for (size_t i = 1; i < jobs.size(); ++i) {
    EXPECT_EQ(pictures[i].status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(pictures[i].status.message()), HasSubstr(named[i]));
  }
  EXPECT_EQ(pictures[0].pixels.rgb, PaintTogether(*executor, 0, {good})[0].pixels.rgb);
}

TEST_F(TorchExecutorTest, StepsOnWhatIsNotThereAreErrorsNotDeaths) {
  auto executor = MakeExecutor();
  EXPECT_EQ(executor->Run({1, 5, StepKind::kText, {}}).status.code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(executor->Load(Command(0, absl::StrCat(kFolder, "taiyi"))).ok());
  executor->Begin(1, 0, Picture("taiyi", "ddim", 4), {});
  executor->Begin(2, 0, TextJob(), {});
  executor->Begin(3, 0, Picture("taiyi", "ddim", 4), {{}, "torn"});
  PictureJob larger = Picture("taiyi", "ddim", 4);
  larger.width = 64;
  executor->Begin(4, 0, larger, {});
  const auto run = [&](StepKind kind, std::vector<SampleHandle> samples) {
    Step step = {1, 0, kind, {}};
    for (SampleHandle sample : samples) step.rows.push_back({sample, 0, {}, false});
    return executor->Run(step);
  };
  EXPECT_EQ(run(StepKind::kDenoise, {77}).rows[0].status.code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(run(StepKind::kText, {1}).status.ok());
  EXPECT_EQ(run(StepKind::kTextEncode, {2}).rows[0].status.code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(run(StepKind::kTextEncode, {3}).rows[0].status.code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(run(StepKind::kTextEncode, {1, 4}).status.ok());
  // Different sizes can't share; neither advances.
  EXPECT_EQ(run(StepKind::kDenoise, {1, 4}).status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(run(StepKind::kDenoise, {1}).rows[0].steps_done, 1u);
  executor->Drop({1});
  EXPECT_EQ(run(StepKind::kDenoise, {1}).rows[0].status.code(), absl::StatusCode::kNotFound);
}

TEST_F(TorchExecutorTest, PreviewsAreSmallPicturesOfTheLatent) {
  auto executor = MakeExecutor();
  ASSERT_TRUE(executor->Load(Command(0, absl::StrCat(kFolder, "taiyi"))).ok());
  executor->Begin(1, 0, Picture("taiyi", "euler", 4), {});
  executor->Run({1, 0, StepKind::kTextEncode, {{1, 0, {}, false}}});
  const RowResult row = executor->Run({2, 0, StepKind::kDenoise, {{1, 0, {}, true}}}).rows[0];
  EXPECT_EQ(row.preview.width, 4u);
  EXPECT_EQ(row.preview.height, 6u);
  ASSERT_EQ(row.preview.rgb.size(), 4u * 6 * 3);
  EXPECT_NE(row.preview.rgb, std::string(row.preview.rgb.size(), row.preview.rgb[0]));
}

TEST_F(TorchExecutorTest, KeepsTheWeightsForTheNextServerButNoSamples) {
  auto executor = MakeExecutor();
  const std::string path = absl::StrCat(kFolder, "taiyi");
  ASSERT_TRUE(executor->Load(Command(0, path)).ok());
  executor->Begin(1, 0, Picture("taiyi", "ddim", 4), {});
  executor->Detach();
  EXPECT_FALSE(executor->Run({1, 0, StepKind::kTextEncode, {{1, 0, {}, false}}}).status.ok());
  ASSERT_TRUE(executor->Load(Command(3, path)).ok());
  EXPECT_EQ(executor->Run({1, 3, StepKind::kTextEncode, {{1, 0, {}, false}}}).rows[0].status.code(),
            absl::StatusCode::kNotFound);
}

// A copy of a pipeline with NaN in the word embedding of one token.
class TamperedTest : public TorchExecutorTest {
 protected:
  static constexpr uint32_t kPoisonedToken = 20;

  TamperedTest()
      : folder_(std::filesystem::temp_directory_path() / absl::StrCat("hanmo-nan-", getpid())) {
    std::filesystem::copy(absl::StrCat(kFolder, "taiyi"), folder_,
                          std::filesystem::copy_options::recursive);
    const std::string path = folder_ / "text_encoder/model.safetensors";
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    uint64_t header_bytes = 0;
    file.read(reinterpret_cast<char*>(&header_bytes), sizeof(header_bytes));
    std::string header(header_bytes, '\0');
    file.read(header.data(), header_bytes);
    const auto entry = nlohmann::json::parse(header).at("embeddings.word_embeddings.weight");
    const uint64_t width = entry.at("shape")[1];
    const uint64_t begin = entry.at("data_offsets")[0];
    const uint16_t nan = 0x7e00;  // float16
    file.seekp(8 + header_bytes + begin + 2 * width * kPoisonedToken);
    file.write(reinterpret_cast<const char*>(&nan), sizeof(nan));
  }
  ~TamperedTest() override { std::filesystem::remove_all(folder_); }

  const std::filesystem::path folder_;
};

TEST_F(TamperedTest, ANonFiniteRowEndsAloneAndItsNeighboursAreUnchanged) {
  auto executor = MakeExecutor();
  ASSERT_TRUE(executor->Load(Command(0, folder_)).ok());
  std::vector<PictureJob> jobs = MixedPictures("taiyi", {"ddim", "euler", "unipc"});
  const std::vector<PaintedPicture> before = PaintTogether(*executor, 0, jobs);
  jobs[1].prompt[2] = kPoisonedToken;
  const std::vector<PaintedPicture> after = PaintTogether(*executor, 0, jobs);
  EXPECT_EQ(after[1].status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(after[1].status.message()), HasSubstr("non-finite"));
  EXPECT_EQ(after[0].pixels.rgb, before[0].pixels.rgb);
  EXPECT_EQ(after[2].pixels.rgb, before[2].pixels.rgb);
}

TEST_F(TamperedTest, ABrokenCheckpointNamesWhatIsWrong) {
  auto executor = MakeExecutor();
  const auto load = [&] { return executor->Load(Command(0, folder_)).status(); };
  std::filesystem::resize_file(folder_ / "unet/diffusion_pytorch_model.safetensors", 5000);
  EXPECT_THAT(std::string(load().message()), HasSubstr("diffusion_pytorch_model.safetensors"));
  std::filesystem::remove(folder_ / "scheduler/scheduler_config.json");
  EXPECT_THAT(std::string(load().message()), HasSubstr("scheduler_config.json"));
  std::ofstream(folder_ / "model_index.json") << R"({"_class_name": "FluxPipeline"})";
  EXPECT_THAT(std::string(load().message()), HasSubstr("_class_name: \"FluxPipeline\""));
  std::filesystem::remove(folder_ / "model_index.json");
  EXPECT_EQ(load().code(), absl::StatusCode::kNotFound);
  LoadCommand command = Command(0, absl::StrCat(kFolder, "taiyi"));
  command.dtype = "int4";
  EXPECT_THAT(std::string(executor->Load(command).status().message()), HasSubstr("dtype"));
}

TEST(ComputeDeviceTest, NamesWhatItCannotOpen) {
  EXPECT_EQ(ComputeDevice::Open("tpu").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ComputeDevice::Open("cuda:x").status().code(), absl::StatusCode::kInvalidArgument);
  const ComputeDevice cpu = *ComputeDevice::Open("cpu");
  EXPECT_GT(cpu.memory().free, 0u);
  EXPECT_GT(cpu.memory().used, 0u);
  EXPECT_THAT(cpu.build(), HasSubstr("torch 2."));
}

}  // namespace
}  // namespace hanmo
