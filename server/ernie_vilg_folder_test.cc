#include "server/ernie_vilg_folder.h"

#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace hanmo {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ErnieVilgFolderTest : public ::testing::Test {
 protected:
  ErnieVilgFolderTest()
      : root_(fs::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(root_);
    transformer_ = nlohmann::json::parse(R"({
        "model_type": "ernie_vilg", "text_vocab_size": 120, "image_vocab_size": 64,
        "max_text_length": 24, "image_grid": [4, 6], "cls_token_id": 2, "sep_token_id": 3,
        "pad_token_id": 0, "boi_token_id": 5, "bot_token_id": 6})");
    vqvae_ = nlohmann::json::parse(R"({"block_out_channels": [8, 8, 8, 8],
                                       "num_vq_embeddings": 64})");
    index_ = nlohmann::json::parse(R"({"_class_name": "ErnieViLGPipeline"})");
  }

  void Write(const std::string& file, const nlohmann::json& content) {
    fs::create_directories((root_ / "brush" / file).parent_path());
    std::ofstream(root_ / "brush" / file) << content.dump();
  }

  // As the repository reads it.
  ModelSpec Read() {
    Write("model_index.json", index_);
    Write("transformer/config.json", transformer_);
    Write("vqvae/config.json", vqvae_);
    auto scan = ScanRepository(root_.string());
    EXPECT_TRUE(scan.ok()) << scan.status();
    EXPECT_EQ(scan->models.size(), 1u);
    return scan->models.at(0);
  }
  std::string Error() { return std::string(Read().status.message()); }

  const fs::path root_;
  nlohmann::json transformer_, vqvae_, index_;
};

TEST_F(ErnieVilgFolderTest, LimitsAndDefaultsFollowTheFiles) {
  Write("generation_config.json",
        {{"temperature", 0.9}, {"top_k", 50}, {"top_p", 0.95}, {"num_candidates", 10}});
  const ModelSpec spec = Read();
  ASSERT_TRUE(spec.status.ok()) << spec.status;
  EXPECT_EQ(spec.kind, ModelKind::kPictureTokens);
  EXPECT_EQ(spec.architecture, "ErnieViLGPipeline");
  EXPECT_EQ(spec.picture.width, 48u);
  EXPECT_EQ(spec.picture.height, 32u);
  EXPECT_EQ(spec.picture.steps, 24u);
  EXPECT_EQ(spec.picture.prompt_tokens, 24u);
  EXPECT_EQ(spec.text.context_tokens, 24u);
  EXPECT_EQ(spec.text.vocabulary_size, 120u);
  EXPECT_THAT(spec.text.eos_token_ids, ElementsAre(3));
  EXPECT_EQ(spec.tokens.rows, 4u);
  EXPECT_EQ(spec.tokens.columns, 6u);
  EXPECT_EQ(spec.tokens.boi, 5u);
  EXPECT_EQ(spec.tokens.bot, 6u);
  EXPECT_FLOAT_EQ(spec.tokens.temperature, 0.9f);
  EXPECT_EQ(spec.tokens.top_k, 50u);
  EXPECT_FLOAT_EQ(spec.tokens.top_p, 0.95f);
  EXPECT_EQ(spec.tokens.candidates, 10u);
}

TEST_F(ErnieVilgFolderTest, WithoutAGenerationConfigTokensAreDrawnFromAll) {
  const ModelSpec spec = Read();
  ASSERT_TRUE(spec.status.ok()) << spec.status;
  EXPECT_EQ(spec.tokens.temperature, 1);
  EXPECT_EQ(spec.tokens.top_k, 0u);
  EXPECT_EQ(spec.tokens.top_p, 1);
}

TEST_F(ErnieVilgFolderTest, EveryKeyThatIsMissingIsNamed) {
  const nlohmann::json whole = transformer_;
  for (const auto& [key, value] : whole.items()) {
    transformer_ = whole;
    transformer_.erase(key);
    EXPECT_THAT(Error(), HasSubstr(key)) << key;
    EXPECT_THAT(Error(), HasSubstr("transformer/config.json")) << key;
    // Nothing is of this type.
    transformer_[key] = {{"a", "b"}};
    EXPECT_THAT(Error(), HasSubstr(key)) << key;
  }
  transformer_ = whole;
  for (const char* key : {"block_out_channels", "num_vq_embeddings"}) {
    const nlohmann::json kept = vqvae_;
    vqvae_.erase(key);
    EXPECT_THAT(Error(), HasSubstr(key));
    EXPECT_THAT(Error(), HasSubstr("vqvae/config.json"));
    vqvae_ = kept;
  }
  EXPECT_EQ(Error(), "");
}

TEST_F(ErnieVilgFolderTest, FilesThatDoNotFitEachOtherAreRefused) {
  transformer_["bot_token_id"] = 120;
  EXPECT_THAT(Error(), HasSubstr("bot_token_id 120 outside its text vocabulary of 120"));
  transformer_["bot_token_id"] = 6;
  vqvae_["num_vq_embeddings"] = 65;
  EXPECT_THAT(Error(), HasSubstr("num_vq_embeddings 65"));
  vqvae_["num_vq_embeddings"] = 64;
  vqvae_["sample_size"] = 64;
  EXPECT_THAT(Error(), HasSubstr("sample_size 64, but an image_grid of 4 x 6 times 8 is 32 x 48"));
  vqvae_["sample_size"] = 48;
  EXPECT_EQ(Error(), "");
  vqvae_.erase("sample_size");
  transformer_["image_grid"] = {4, 513};
  EXPECT_THAT(Error(), HasSubstr("more than 512 a side"));
  transformer_["image_grid"] = {4, 0};
  EXPECT_THAT(Error(), HasSubstr("image_grid"));
  transformer_["image_grid"] = {4, 6};
  index_["_class_name"] = "ErniePipeline";
  EXPECT_THAT(Error(), HasSubstr("ErnieViLGPipeline and ErnieViLG2Pipeline are served"));
}

}  // namespace
}  // namespace hanmo
