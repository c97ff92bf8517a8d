#include "workers/models/vae.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "workers/models/testing/golden.h"
#include "workers/models/vae_config.h"

namespace hanmo {
namespace {

using ::hanmo::testing::Golden;
using ::hanmo::testing::OpenFolder;
using ::hanmo::testing::RelativeError;
using ::testing::HasSubstr;

std::string VaeFolder(const std::string& name) { return "tests/goldens/vae/" + name; }

std::unique_ptr<Vae> LoadVae(const std::string& name, at::ScalarType dtype = at::kFloat) {
  return testing::LoadWhole<Vae>(VaeFolder(name), dtype);
}

class VaeGoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(VaeGoldenTest, DecodesAndEncodesAsDiffusersDoes) {
  const auto vae = LoadVae(GetParam());
  Golden golden(VaeFolder(GetParam()) + "/golden.safetensors");
  const at::Tensor expected = golden.Get("pictures");
  const at::Tensor pictures = vae->Decode(golden.Get("latents"));
  EXPECT_LT(RelativeError(pictures, expected), 1e-5);
  EXPECT_EQ(pictures.size(2), golden.Get("latents").size(2) * vae->traits().factor);
  ASSERT_TRUE(vae->can_encode());
  EXPECT_LT(RelativeError(vae->Encode(expected.clamp(-1, 1)), golden.Get("moments")), 1e-5);
}

TEST_P(VaeGoldenTest, RoundsAsDiffusersDoes) {
  Golden golden(VaeFolder(GetParam()) + "/golden.safetensors");
  EXPECT_TRUE(ToRgb8(golden.Get("pictures")).equal(golden.Get("rgb", at::kByte)));
}

TEST_P(VaeGoldenTest, APictureIsTheSameInAnyCompany) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(toString(dtype));
    const auto vae = LoadVae(GetParam(), dtype);
    for (const int64_t size : {1, 4, 9}) {
      at::manual_seed(size);
      const at::Tensor latents = at::randn({7, vae->traits().latent_channels, size, size + 1});
      const at::Tensor all = vae->Decode(latents);
      for (const int64_t n : {1, 2, 3, 4}) {
        const at::Tensor some = vae->Decode(latents.narrow(0, 2, n));
        EXPECT_TRUE(some.equal(all.narrow(0, 2, n))) << n << " of size " << size;
      }
    }
  }
}

TEST_P(VaeGoldenTest, StaysCloseInBfloat16) {
  const auto vae = LoadVae(GetParam(), at::kBFloat16);
  Golden golden(VaeFolder(GetParam()) + "/golden.safetensors");
  EXPECT_LT(RelativeError(vae->Decode(golden.Get("latents")), golden.Get("pictures")), 0.06);
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, VaeGoldenTest,
                         ::testing::Values("sd1", "old", "oldest", "bare", "flat"));

TEST(VaeTest, ADecoderAloneIsEnough) {
  Checkpoint checkpoint = OpenFolder(VaeFolder("sd1"));
  const absl::Status renamed = checkpoint.Rename([](absl::string_view name) {
    return name.substr(0, 8) == "encoder." ? std::string() : std::string(name);
  });
  ASSERT_TRUE(renamed.ok());
  const auto vae = Vae::Load(checkpoint, {});
  ASSERT_TRUE(vae.ok()) << vae.status();
  EXPECT_FALSE((*vae)->can_encode());
}

TEST(VaeTest, RoundsHalfToEven) {
  const at::Tensor levels = at::tensor({126.5, 128.5, 129.5, -7.0, 300.0}) / 255 * 2 - 1;
  const at::Tensor pictures = levels.view({1, 1, 1, 5}).expand({1, 3, 1, 5});
  const at::Tensor rgb = ToRgb8(pictures);
  EXPECT_EQ(rgb.sizes(), at::IntArrayRef({1, 1, 5, 3}));
  const at::Tensor expected = at::tensor({126, 128, 130, 0, 255}, at::kByte);
  EXPECT_TRUE(rgb.select(3, 0).flatten().equal(expected)) << rgb;
}

TEST(VaeConfigTest, NamesTheKeyItCannotServe) {
  const std::pair<const char*, nlohmann::json> cases[] = {
      {"act_fn", "relu"},
      {"block_out_channels", {0}},
      {"block_out_channels", "64"},
      {"down_block_types", {"SkipDownBlock2D"}},
      {"up_block_types", {"UpDecoderBlock2D", "UpDecoderBlock2D"}},
      {"latent_channels", 0},
      {"layers_per_block", {1, 2}},
      {"scaling_factor", 0},
      {"latents_mean", {0.0}},
      {"out_channels", 4},
      {"use_quant_conv", 1},
  };
  for (const auto& [key, value] : cases) {
    const auto config = VaeConfig::FromJson({{key, value}});
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << key << " " << value;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(key));
  }
}

}  // namespace
}  // namespace hanmo
