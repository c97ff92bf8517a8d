// Against transformers, see tests/goldens/reranker/generate.py.
#include "workers/models/reranker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "workers/models/testing/golden.h"

namespace hanmo {
namespace {

using ::hanmo::testing::Golden;
using ::hanmo::testing::RelativeError;
using ::testing::HasSubstr;

constexpr int kTexts = 3;
constexpr int kSizes = 5;

std::string Folder(const std::string& name) { return "tests/goldens/reranker/" + name; }

std::string ClassOf(const std::string& name) {
  if (name == "taiyi") return "TaiyiCLIPModel";
  return name == "taiyi_roberta" ? "BertForSequenceClassification" : "ChineseCLIPModel";
}

std::unique_ptr<Reranker> LoadGolden(const std::string& name, at::ScalarType dtype = at::kFloat) {
  auto reranker = Reranker::Load(Folder(name), ClassOf(name), {.dtype = dtype}, {});
  EXPECT_TRUE(reranker.ok()) << reranker.status();
  return *std::move(reranker);
}

std::vector<uint32_t> IdsOf(Golden& golden, int text) {
  const at::Tensor ids = golden.Get(absl::StrCat("ids_", text), at::kLong);
  return {ids.data_ptr<int64_t>(), ids.data_ptr<int64_t>() + ids.numel()};
}

class RerankerGoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  Golden golden_{Folder(GetParam()) + "/golden.safetensors"};
};

TEST_P(RerankerGoldenTest, HasTheFeaturesThatTransformersHas) {
  const auto reranker = LoadGolden(GetParam());
  for (int i = 0; i < kTexts; ++i) {
    EXPECT_LT(RelativeError(reranker->EncodeText(IdsOf(golden_, i)),
                            golden_.Get(absl::StrCat("text_", i))),
              1e-5);
  }
  for (int i = 0; i < kSizes; ++i) {
    const at::Tensor rgb = golden_.Get(absl::StrCat("rgb_", i), at::kByte);
    EXPECT_LT(
        RelativeError(reranker->EncodePictures(rgb), golden_.Get(absl::StrCat("picture_", i))),
        1e-5);
  }
}

TEST_P(RerankerGoldenTest, ScoresWhatTransformersScores) {
  for (const auto& [dtype, tolerance] : {std::pair{at::kFloat, 1e-5}, {at::kBFloat16, 0.05}}) {
    const auto reranker = LoadGolden(GetParam(), dtype);
    for (int text = 0; text < kTexts; ++text) {
      const std::vector<uint32_t> ids = IdsOf(golden_, text);
      for (int i = 0; i < kSizes; ++i) {
        const std::vector<float> scores =
            reranker->Score({&ids, &ids}, golden_.Get(absl::StrCat("rgb_", i), at::kByte));
        const at::Tensor expected = golden_.Get(absl::StrCat("scores_", i))[text];
        EXPECT_NEAR(scores[0], expected[0].item<float>(), tolerance);
        EXPECT_NEAR(scores[1], expected[1].item<float>(), tolerance);
      }
    }
  }
}

TEST_P(RerankerGoldenTest, AScoreIsTheSameInAnyCompany) {
  const std::vector<uint32_t> ids = IdsOf(golden_, 0), other = IdsOf(golden_, 1);
  const at::Tensor rgb = golden_.Get("rgb_1", at::kByte);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const float alone = LoadGolden(GetParam(), dtype)->Score({&ids}, rgb.narrow(0, 1, 1))[0];
    const auto reranker = LoadGolden(GetParam(), dtype);
    for (int n = 1; n <= 5; ++n) {
      std::vector<const std::vector<uint32_t>*> prompts(n, &other);
      prompts.back() = &ids;
      const at::Tensor company =
          at::cat({rgb.narrow(0, 0, 1).expand({n - 1, -1, -1, -1}), rgb.narrow(0, 1, 1)});
      EXPECT_EQ(reranker->Score(prompts, company).back(), alone) << n;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, RerankerGoldenTest,
                         ::testing::Values("chinese_clip", "chinese_clip_gelu", "taiyi",
                                           "taiyi_roberta"));

TEST(RerankerTest, PreparesPicturesAsPillowDoes) {
  for (const std::string name : {"chinese_clip", "chinese_clip_gelu", "taiyi"}) {
    Golden golden(Folder(name) + "/golden.safetensors");
    const std::string path = Folder(name) + "/preprocessor_config.json";
    const nlohmann::json settings = std::filesystem::exists(path)
                                        ? nlohmann::json::parse(std::ifstream(path))
                                        : nlohmann::json::object();
    for (int i = 0; i < kSizes; ++i) {
      const at::Tensor expected = golden.Get(absl::StrCat("prepared_", i));
      const auto prepare = ClipPreprocessor::FromJson(settings, expected.size(3));
      ASSERT_TRUE(prepare.ok()) << prepare.status();
      const at::Tensor found = (*prepare)(golden.Get(absl::StrCat("rgb_", i), at::kByte));
      ASSERT_EQ(found.sizes(), expected.sizes());
      // One of the 256 levels more or less would be a thousand times that.
      EXPECT_LT((found - expected).abs().max().item<float>(), 2e-6) << name << " " << i;
    }
  }
}

TEST(RerankerTest, RefusesPromptsThatItCannotEncode) {
  const auto reranker = LoadGolden("chinese_clip");
  EXPECT_TRUE(reranker->CheckPrompt(std::vector<uint32_t>(32, 3)).ok());
  EXPECT_THAT(std::string(reranker->CheckPrompt({}).message()), HasSubstr("1 to 32"));
  EXPECT_FALSE(reranker->CheckPrompt(std::vector<uint32_t>(33, 3)).ok());
  EXPECT_THAT(std::string(reranker->CheckPrompt({2, 38}).message()), HasSubstr("below 38"));
}

// A copy of a golden folder whose `file` has `key` (a JSON pointer) changed.
absl::Status LoadWith(const std::string& name, const std::string& file, const std::string& key,
                      const nlohmann::json& value) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(::testing::TempDir()) / "reranker_test";
  fs::remove_all(folder);
  fs::copy(Folder(name), folder, fs::copy_options::recursive);
  nlohmann::json config = nlohmann::json::parse(std::ifstream(folder / file));
  config[nlohmann::json::json_pointer(key)] = value;
  std::ofstream(folder / file) << config;
  return Reranker::Load(folder, ClassOf(name), {}, {}).status();
}

TEST(RerankerTest, NamesWhatItCannotServe) {
  const std::string config = "config.json", preprocessor = "preprocessor_config.json";
  const std::tuple<std::string, std::string, std::string, nlohmann::json, std::string> cases[] = {
      {"chinese_clip", config, "/text_pooling", "pooler", "text_model.pooler.dense.weight"},
      {"chinese_clip", config, "/text_pooling", "seqcls_logits", "text_pooling"},
      {"chinese_clip", config, "/text_pooling", "mean", "cls or pooler"},
      {"taiyi_roberta", config, "/text_pooling", "cls", "seqcls_logits"},
      {"chinese_clip", config, "/text_config", nullptr, "reranker text config.json"},
      {"chinese_clip", config, "/text_config/num_hidden_layers", 3, "encoder.layer.2"},
      {"chinese_clip", config, "/text_config/hidden_act", "mish", "reranker text config.json"},
      {"chinese_clip", config, "/vision_config", 7, "reranker vision config.json"},
      {"chinese_clip", config, "/vision_config/num_channels", 4, "num_channels"},
      {"chinese_clip", config, "/vision_config/patch_size", 5, "patch_size"},
      {"chinese_clip", config, "/vision_config/patch_size", 4, "patch_embedding.weight"},
      {"chinese_clip", config, "/vision_config/image_size", 64, "position_embedding.weight"},
      {"chinese_clip", preprocessor, "/resample", 2, "resample"},
      {"chinese_clip", preprocessor, "/size/width", 0, "size"},
      {"chinese_clip", preprocessor, "/size/width", 40, "do_center_crop"},
      {"chinese_clip", preprocessor, "/image_mean", {0.5, 0.5}, "image_mean"},
      {"chinese_clip_gelu", preprocessor, "/size/shortest_edge", 20, "size"},
      {"chinese_clip_gelu", preprocessor, "/crop_size/height", 20, "crop_size"},
      {"chinese_clip_gelu", preprocessor, "/image_std", {0.5, 0, 0.5}, "image_std"},
  };
  for (const auto& [name, file, key, value, mention] : cases) {
    const absl::Status status = LoadWith(name, file, key, value);
    EXPECT_EQ(status.code() == absl::StatusCode::kInvalidArgument || absl::IsNotFound(status), true)
        << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(mention)) << key;
  }
  EXPECT_THAT(std::string(Reranker::Load(Folder("taiyi"), "CLIPModel", {}, {}).status().message()),
              HasSubstr("model_index.json: reranker: \"CLIPModel\" found"));
  EXPECT_THAT(std::string(Reranker::Load(Folder("taiyi"), "BertForSequenceClassification", {}, {})
                              .status()
                              .message()),
              HasSubstr("text_pooling"));
}

}  // namespace
}  // namespace hanmo
