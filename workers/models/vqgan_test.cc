#include "workers/models/vqgan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "workers/models/testing/golden.h"
#include "workers/models/vqgan_config.h"

namespace hanmo {
namespace {

using ::hanmo::testing::Golden;
using ::hanmo::testing::OpenFolder;
using ::hanmo::testing::RelativeError;
using ::testing::HasSubstr;

std::string VqganFolder(const std::string& name) { return "tests/goldens/vqgan/" + name; }

std::unique_ptr<Vqgan> LoadVqgan(const std::string& name, at::ScalarType dtype = at::kFloat) {
  return testing::LoadWhole<Vqgan>(VqganFolder(name), dtype);
}

class VqganGoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(VqganGoldenTest, DecodesCodesAsDiffusersDoes) {
  const auto vqgan = LoadVqgan(GetParam());
  Golden golden(VqganFolder(GetParam()) + "/golden.safetensors");
  const at::Tensor codes = golden.Get("codes", at::kLong);
  const at::Tensor pictures = vqgan->Decode(codes);
  EXPECT_LT(RelativeError(pictures, golden.Get("pictures")), 1e-5);
  EXPECT_EQ(pictures.size(2), codes.size(1) * vqgan->traits().factor);
}

TEST_P(VqganGoldenTest, FindsTheCodesThatDiffusersFinds) {
  const auto vqgan = LoadVqgan(GetParam());
  Golden golden(VqganFolder(GetParam()) + "/golden.safetensors");
  EXPECT_TRUE(vqgan->Encode(golden.Get("inputs")).equal(golden.Get("encoded", at::kLong)));
}

TEST_P(VqganGoldenTest, APictureIsTheSameInAnyCompany) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(toString(dtype));
    const auto vqgan = LoadVqgan(GetParam(), dtype);
    at::manual_seed(1);
    const at::Tensor codes = at::randint(vqgan->traits().codes, {7, 4, 5}, at::kLong);
    const at::Tensor all = vqgan->Decode(codes);
    const at::Tensor read = vqgan->Encode(all.clamp(-1, 1));
    for (const int64_t n : {1, 2, 3, 4}) {
      const at::Tensor some = all.narrow(0, 2, n);
      EXPECT_TRUE(vqgan->Decode(codes.narrow(0, 2, n)).equal(some)) << n;
      EXPECT_TRUE(vqgan->Encode(some.clamp(-1, 1)).equal(read.narrow(0, 2, n))) << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, VqganGoldenTest,
                         ::testing::Values("f8", "narrow", "attentive"));

TEST(VqganConfigTest, NamesTheKeyItCannotServe) {
  const std::pair<const char*, nlohmann::json> cases[] = {
      {"norm_type", "spatial"}, {"num_vq_embeddings", 0},          {"vq_embed_dim", "wide"},
      {"latent_channels", 0},   {"up_block_types", {"UpBlock2D"}},
  };
  for (const auto& [key, value] : cases) {
    const auto config = VqganConfig::FromJson({{key, value}});
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << key;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(key));
  }
}

TEST(VqganTest, ACodebookOfAnotherSizeIsNamed) {
  const std::string folder = ::testing::TempDir() + "another_codebook";
  std::filesystem::copy(
      VqganFolder("f8"), folder,
      std::filesystem::copy_options::overwrite_existing | std::filesystem::copy_options::recursive);
  nlohmann::json json = OpenFolder(folder).config();
  json["num_vq_embeddings"] = 65;
  std::ofstream(folder + "/config.json") << json;
  Checkpoint checkpoint = OpenFolder(folder);
  const auto vqgan = Vqgan::Load(checkpoint, {});
  EXPECT_EQ(vqgan.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(vqgan.status().message()), HasSubstr("quantize.embedding.weight"));
}

}  // namespace
}  // namespace hanmo
