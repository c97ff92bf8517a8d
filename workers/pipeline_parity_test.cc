// Whole pictures against diffusers, see tests/goldens/pipelines/generate.py.
#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/models/vae.h"
#include "workers/samplers/save_point.h"
#include "workers/testing/run_samples.h"
#include "workers/torch_executor.h"

namespace hanmo {
namespace {

constexpr char kFolder[] = "tests/goldens/pipelines/";

PictureJob JobOf(const nlohmann::json& golden, const nlohmann::json& entry) {
  const nlohmann::json& prompts = golden.at("prompts").at(entry.at("folder").get<std::string>());
  PictureJob job;
  job.prompt = prompts.at("prompt").get<std::vector<uint32_t>>();
  job.negative_prompt = prompts.at("negative_prompt").get<std::vector<uint32_t>>();
  job.width = entry.at("width");
  job.height = entry.at("height");
  job.sampler = entry.at("sampler");
  job.steps = entry.at("steps");
  job.guidance = entry.at("guidance_scale");
  job.seed = entry.at("seed");
  return job;
}

// The latent that a save point holds; its format is documented in save_point.h.
at::Tensor LatentOf(const std::string& save_point, const std::vector<int64_t>& shape) {
  constexpr size_t kHeaderBytes = 4 + 4 + 8 + 8 + 8 + 6 * 4;
  return at::from_blob(const_cast<char*>(save_point.data()) + kHeaderBytes, shape, at::kFloat)
      .clone();
}

// The picture before rounding, height x width x 3 in 0 to 1.
at::Tensor BeforeRounding(const std::string& folder, const PictureJob& job,
                          const std::string& save_point) {
  Checkpoint checkpoint = *Checkpoint::Open(absl::StrCat(kFolder, folder, "/vae"));
  const auto vae = *Vae::Load(checkpoint, {});
  const int64_t factor = vae->traits().factor;
  const at::Tensor latent = LatentOf(
      save_point, {1, vae->traits().latent_channels, job.height / factor, job.width / factor});
  return vae->Decode(latent)[0].permute({1, 2, 0}).div(2).add(0.5).clamp(0, 1);
}

TEST(PipelineParityTest, EverySamplerPaintsWhatDiffusersPaints) {
  c10::InferenceMode inference;
  const nlohmann::json golden =
      nlohmann::json::parse(std::ifstream(absl::StrCat(kFolder, "golden.json")));
  Checkpoint pictures = *Checkpoint::OpenFile(absl::StrCat(kFolder, "golden.safetensors"));
  SetComputeThreads(1);
  TorchExecutor executor(*ComputeDevice::Open("cpu"));
  std::string loaded;
  double worst_psnr = INFINITY, worst_equal = 1;
  for (const nlohmann::json& entry : golden.at("cases")) {
    const std::string folder = entry.at("folder");
    const PictureJob job = JobOf(golden, entry);
    if (folder != loaded) {
      LoadCommand load;
      load.path = kFolder + folder;
      const auto status = executor.Load(load).status();
      ASSERT_TRUE(status.ok()) << folder << ": " << status;
      loaded = folder;
    }
    const testing::PaintedPicture found = testing::PaintTogether(executor, 0, {job})[0];
    ASSERT_TRUE(found.status.ok()) << found.status;
    const at::Tensor expected =
        *pictures.Take(absl::StrCat(folder, ".", job.sampler), {job.height, job.width, 3});

    const at::Tensor exact = BeforeRounding(folder, job, found.save_point);
    const double error = (exact - expected).to(at::kDouble).square().mean().item<double>();
    const double psnr = -10 * std::log10(error);
    EXPECT_GE(psnr, 80) << folder << " " << job.sampler;

    const at::Tensor bytes = at::from_blob(const_cast<char*>(found.pixels.rgb.data()),
                                           {job.height, job.width, 3}, at::kByte)
                                 .to(at::kInt);
    const at::Tensor difference = (bytes - expected.mul(255).round().to(at::kInt)).abs();
    const double equal = difference.eq(0).to(at::kDouble).mean().item<double>();
    EXPECT_LE(difference.max().item<int>(), 1) << folder << " " << job.sampler;
    EXPECT_GE(equal, 0.99) << folder << " " << job.sampler;
    worst_psnr = std::min(worst_psnr, psnr);
    worst_equal = std::min(worst_equal, equal);
  }
  printf("worst of %zu pictures: PSNR %.1f dB before rounding, %.2f %% of bytes equal\n",
         golden.at("cases").size(), worst_psnr, 100 * worst_equal);
  RecordProperty("worst_psnr_db", absl::StrCat(worst_psnr));
}

}  // namespace
}  // namespace hanmo
