#include "workers/models/unet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "workers/models/testing/golden.h"
#include "workers/models/unet_config.h"

namespace hanmo {
namespace {

using ::hanmo::testing::Golden;
using ::hanmo::testing::OpenFolder;
using ::hanmo::testing::RelativeError;
using ::testing::HasSubstr;

std::string Folder(const std::string& name) { return "tests/goldens/unet/" + name; }

std::unique_ptr<Unet> LoadUnet(const std::string& name, at::ScalarType dtype = at::kFloat) {
  return testing::LoadWhole<Unet>(Folder(name), dtype);
}

class UnetGoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(UnetGoldenTest, PredictsWhatDiffusersPredicts) {
  const auto unet = LoadUnet(GetParam());
  Golden golden(Folder(GetParam()) + "/golden.safetensors");
  const at::Tensor prediction =
      unet->Forward(golden.Get("latents"), golden.Get("timesteps"), golden.Get("text"));
  EXPECT_LT(RelativeError(prediction, golden.Get("prediction")), 1e-5);
}

TEST_P(UnetGoldenTest, StaysCloseInBfloat16) {
  const auto unet = LoadUnet(GetParam(), at::kBFloat16);
  Golden golden(Folder(GetParam()) + "/golden.safetensors");
  const at::Tensor prediction =
      unet->Forward(golden.Get("latents"), golden.Get("timesteps"), golden.Get("text"));
  EXPECT_EQ(prediction.scalar_type(), at::kFloat);
  // bfloat16 has 8 bits, and group norms over a handful of values amplify their rounding.
  EXPECT_LT(RelativeError(prediction, golden.Get("prediction")), 0.12);
}

// Row i of a batch of n rows, each with its own timestep and prompt, for many n.
void ExpectRowsIndependent(const Unet& unet, at::IntArrayRef latent, int64_t length) {
  const int64_t count = 7;
  at::manual_seed(3);
  const at::Tensor latents = at::randn({count, latent[0], latent[1], latent[2]});
  const at::Tensor text = at::randn({count, length, unet.traits().text_width});
  const at::Tensor timesteps = at::rand({count}) * 1000;
  const at::Tensor all = unet.Forward(latents, timesteps, text);
  for (const int64_t n : {1, 2, 3, 4}) {
    for (int64_t first = 0; first + n <= count; first += 3) {
      const at::Tensor some = unet.Forward(latents.narrow(0, first, n),
                                           timesteps.narrow(0, first, n), text.narrow(0, first, n));
      EXPECT_TRUE(some.equal(all.narrow(0, first, n)))
          << n << " rows from " << first << " of " << latent << ": "
          << (some - all.narrow(0, first, n)).abs().max().item<float>();
    }
  }
}

TEST_P(UnetGoldenTest, ARowIsTheSameInAnyCompany) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(toString(dtype));
    const auto unet = LoadUnet(GetParam(), dtype);
    const int64_t channels = unet->traits().in_channels;
    ExpectRowsIndependent(*unet, {channels, 4, 4}, 1);
    ExpectRowsIndependent(*unet, {channels, 8, 8}, 77);
    ExpectRowsIndependent(*unet, {channels, 12, 20}, 7);
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, UnetGoldenTest,
                         ::testing::Values("sd1", "lists", "switches", "shallow", "deep", "vilg2"));

TEST(UnetTest, NamesTheTensorThatDoesNotFit) {
  Checkpoint checkpoint = OpenFolder(Folder("sd1"));
  const absl::Status renamed = checkpoint.Rename([](absl::string_view name) {
    return name == "mid_block.resnets.1.conv2.bias" ? std::string() : std::string(name);
  });
  ASSERT_TRUE(renamed.ok());
  const auto unet = Unet::Load(checkpoint, {});
  EXPECT_THAT(std::string(unet.status().message()), HasSubstr("mid_block.resnets.1.conv2.bias"));
}

TEST(UnetConfigTest, DefaultsAreThoseOfStableDiffusion) {
  const auto config = UnetConfig::FromJson(nlohmann::json::object());
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->levels.size(), 4);
  EXPECT_EQ(config->levels[3].channels, 1280);
  EXPECT_EQ(config->levels[0].heads, 8);
  EXPECT_FALSE(config->levels[3].down_attends);
  EXPECT_FALSE(config->levels[3].up_attends);
  EXPECT_TRUE(config->levels[0].up_attends);
}

TEST(UnetConfigTest, ErnieViLG2sShapeIsRead) {
  const auto config = UnetConfig::FromJson(
      {{"block_out_channels", {512, 1024, 1536, 2048}},
       {"layers_per_block", 3},
       {"cross_attention_dim", 2048},
       {"attention_head_dim", {8, 16, 24, 32}},
       {"sample_size", 128},
       {"down_block_types",
        {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"}},
       {"up_block_types",
        {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}}});
  ASSERT_TRUE(config.ok()) << config.status();
  ASSERT_EQ(config->levels.size(), 4);
  for (size_t i = 0; i < 4; ++i) {
    const UnetLevel& level = config->levels[i];
    EXPECT_EQ(level.channels / level.heads, 64) << i;
    EXPECT_EQ(level.layers, 3) << i;
    EXPECT_EQ(level.text_width, 2048) << i;
    EXPECT_EQ(level.down_attends, i > 0) << i;
    EXPECT_EQ(level.up_attends, i > 0) << i;
  }
}

TEST(UnetConfigTest, NamesTheKeyItCannotServe) {
  const std::pair<const char*, nlohmann::json> cases[] = {
      {"act_fn", "mish"},
      {"addition_embed_type", "text_time"},
      {"class_embed_type", "projection"},
      {"resnet_time_scale_shift", "scale_shift"},
      {"time_cond_proj_dim", 256},
      {"num_attention_heads", 8},
      {"only_cross_attention", true},
      {"down_block_types", {"AttnDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"}},
      {"up_block_types", {"UpBlock2D"}},
      {"mid_block_type", "UNetMidBlock2DSimpleCrossAttn"},
      {"attention_head_dim", 7},
      {"attention_head_dim", {8, 8}},
      {"layers_per_block", 0},
      {"block_out_channels", {320, -1}},
      {"block_out_channels", nlohmann::json::array()},
      {"norm_eps", "small"},
      {"norm_num_groups", nullptr},
      {"conv_in_kernel", 4},
      {"in_channels", 1e300},
      {"cross_attention_dim", {768, 768, 768, 1024}},
      {"sample_size", 2.5},
  };
  for (const auto& [key, value] : cases) {
    const auto config = UnetConfig::FromJson({{key, value}});
    EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument) << key << " " << value;
    EXPECT_THAT(std::string(config.status().message()), HasSubstr(key));
  }
}

TEST(UnetConfigTest, RefusesWhatIsNotAnObject) {
  EXPECT_FALSE(UnetConfig::FromJson(nlohmann::json::array({1})).ok());
}

}  // namespace
}  // namespace hanmo
