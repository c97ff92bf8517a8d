#include "server/repository.h"

#include <cmath>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace hanmo {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kGpt2[] =
    R"({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_positions": 1024,
        "vocab_size": 50258, "eos_token_id": 50256})";
constexpr char kUnet[] = R"({"sample_size": 64})";
constexpr char kVae[] = R"({"block_out_channels": [128, 256, 512, 512]})";
constexpr char kBert[] = R"({"vocab_size": 21128, "max_position_embeddings": 512})";
constexpr char kIndex[] = R"({"_class_name": "StableDiffusionPipeline"})";
constexpr char kPndm[] = R"({"_class_name": "PNDMScheduler"})";

class RepositoryTest : public ::testing::Test {
 protected:
  RepositoryTest()
      : root_(fs::path(::testing::TempDir()) /
              ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    fs::remove_all(root_);
    fs::create_directories(root_);
  }

  void Write(const std::string& file, const std::string& content) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << content;
  }

  void WritePictureModel(const std::string& name) {
    Write(name + "/model_index.json", kIndex);
    Write(name + "/unet/config.json", kUnet);
    Write(name + "/vae/config.json", kVae);
    Write(name + "/text_encoder/config.json", kBert);
    Write(name + "/tokenizer/tokenizer_config.json", R"({"model_max_length": 512})");
    Write(name + "/scheduler/scheduler_config.json", kPndm);
  }

  ModelSpec Only() {
    auto scan = ScanRepository(root_.string());
    EXPECT_TRUE(scan.ok()) << scan.status();
    EXPECT_EQ(scan->models.size(), 1u);
    return scan->models.at(0);
  }

  const fs::path root_;
};

TEST_F(RepositoryTest, ReadsTheDecodersOfOtherFamilies) {
  Write("m/config.json", R"({"model_type": "qwen3", "max_position_embeddings": 40960,
                             "vocab_size": 151936, "eos_token_id": 151645})");
  Write("m/generation_config.json", R"({"do_sample": true, "eos_token_id": [151645, 151643],
                                        "temperature": 0.6, "top_k": 20, "top_p": 0.95})");
  const ModelSpec spec = Only();
  ASSERT_TRUE(spec.status.ok()) << spec.status;
  EXPECT_EQ(spec.architecture, "Qwen3ForCausalLM");
  EXPECT_EQ(spec.text.context_tokens, 40960u);
  EXPECT_THAT(spec.text.eos_token_ids, ElementsAre(151645, 151643));
  EXPECT_FLOAT_EQ(spec.text.temperature, 0.6f);
  EXPECT_EQ(spec.text.top_k, 20u);
  for (const auto& [type, architecture] :
       {std::pair{"ernie4_5", "Ernie4_5ForCausalLM"}, {"llama", "LlamaForCausalLM"}}) {
    Write("m/config.json", absl::StrCat(R"({"model_type": ")", type,
                                        R"(", "max_position_embeddings": 64, "vocab_size": 9})"));
    EXPECT_EQ(Only().architecture, architecture);
  }
}

TEST_F(RepositoryTest, ListsModelsByNameAndSkipsOtherFolders) {
  WritePictureModel("taiyi");
  Write("gpt2/config.json", kGpt2);
  Write("recipes/train.py", "");
  Write(".hidden/config.json", kGpt2);
  Write("bad name/config.json", kGpt2);
  Write("README.md", "");
  auto scan = ScanRepository(root_.string());
  ASSERT_TRUE(scan.ok()) << scan.status();
  ASSERT_EQ(scan->models.size(), 2u);
  EXPECT_EQ(scan->models[0].name, "gpt2");
  EXPECT_EQ(scan->models[0].id, 0u);
  EXPECT_EQ(scan->models[1].name, "taiyi");
  EXPECT_EQ(scan->models[1].id, 1u);
  EXPECT_THAT(scan->skipped, ElementsAre(HasSubstr("bad name: a model's name"),
                                         HasSubstr("recipes: model_index.json")));
}

TEST_F(RepositoryTest, FoldersOfNumbersAreVersions) {
  for (const char* version : {"10", "2", "007", "0", "new", "1234567890"}) {
    Write(std::string("gpt2/") + version + "/config.json", kGpt2);
  }
  Write("gpt2/2/weights/3/config.json", kGpt2);
  auto scan = ScanRepository(root_.string());
  ASSERT_TRUE(scan.ok()) << scan.status();
  ASSERT_EQ(scan->models.size(), 2u);
  EXPECT_EQ(scan->models[0].version, 2u);
  EXPECT_EQ(scan->models[1].version, 10u);
  EXPECT_EQ(scan->models[1].name, "gpt2");
  EXPECT_TRUE(scan->models[1].status.ok());

  Write("gpt2/11/config.json", "{");
  const auto versions = ReadVersions(root_.string(), "gpt2");
  ASSERT_TRUE(versions.ok()) << versions.status();
  ASSERT_EQ(versions->size(), 3u);
  EXPECT_FALSE(versions->back().status.ok()) << "a broken version is one, with its reason";
}

TEST_F(RepositoryTest, OnlyNamesOfTheRepositoryAreRead) {
  Write("gpt2/config.json", kGpt2);
  Write("../outside/config.json", kGpt2);
  EXPECT_TRUE(ReadVersions(root_.string(), "gpt2").ok());
  EXPECT_TRUE(absl::IsNotFound(ReadVersions(root_.string(), "other").status()));
  for (const char* name : {"", ".", "..", "../outside", "/etc", "gpt2/", "gpt2/../../outside",
                           "gpt2\\..", "%2e%2e", "gpt2\n", ".hidden"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ReadVersions(root_.string(), name).status())) << name;
  }
}

TEST_F(RepositoryTest, ReadsTextModel) {
  Write("m/config.json", kGpt2);
  const ModelSpec spec = Only();
  EXPECT_TRUE(spec.status.ok()) << spec.status;
  EXPECT_EQ(spec.kind, ModelKind::kText);
  EXPECT_EQ(spec.architecture, "GPT2LMHeadModel");
  EXPECT_EQ(spec.text.context_tokens, 1024u);
  EXPECT_EQ(spec.text.vocabulary_size, 50258u);
  EXPECT_THAT(spec.text.eos_token_ids, ElementsAre(50256));
  EXPECT_EQ(spec.text.temperature, 1);
  EXPECT_EQ(spec.text.max_tokens, 256u);
}

TEST_F(RepositoryTest, GenerationConfigGivesDefaults) {
  Write("m/config.json", kGpt2);
  Write("m/generation_config.json",
        R"({"eos_token_id": [7, 9], "temperature": 0.7, "top_k": 50, "top_p": 0.6,
            "repetition_penalty": 1.2, "max_new_tokens": 64})");
  const TextModelSpec text = Only().text;
  EXPECT_THAT(text.eos_token_ids, ElementsAre(7, 9));
  EXPECT_FLOAT_EQ(text.temperature, 0.7f);
  EXPECT_EQ(text.top_k, 50u);
  EXPECT_FLOAT_EQ(text.top_p, 0.6f);
  EXPECT_FLOAT_EQ(text.repetition_penalty, 1.2f);
  EXPECT_EQ(text.max_tokens, 64u);
}

TEST_F(RepositoryTest, ReadsThePythonSpellingOfInfinity) {
  WritePictureModel("m");
  Write("m/scheduler/scheduler_config.json",
        R"({"note": "a \" -Infinity", "lambda_min_clipped": -Infinity, "x": [Infinity, NaN],
            "_class_name": "DPMSolverMultistepScheduler"})");
  const ModelSpec spec = Only();
  EXPECT_TRUE(spec.status.ok()) << spec.status;
  EXPECT_EQ(spec.picture.sampler, "dpmpp_2m");
}

TEST_F(RepositoryTest, ReadsPictureModel) {
  WritePictureModel("m");
  const ModelSpec spec = Only();
  EXPECT_TRUE(spec.status.ok()) << spec.status;
  EXPECT_EQ(spec.kind, ModelKind::kPicture);
  EXPECT_EQ(spec.architecture, "StableDiffusionPipeline");
  EXPECT_EQ(spec.picture.width, 512u);
  EXPECT_EQ(spec.picture.height, 512u);
  EXPECT_EQ(spec.picture.size_multiple, 8u);
  EXPECT_EQ(spec.picture.sampler, "pndm");
  EXPECT_EQ(spec.picture.prompt_tokens, 512u);
  EXPECT_EQ(spec.picture.steps, 50u);
}

TEST_F(RepositoryTest, SizesFollowTheCheckpoint) {
  WritePictureModel("m");
  Write("m/vae/config.json", R"({"block_out_channels": [8, 8, 8, 8, 8]})");
  Write("m/unet/config.json", R"({"sample_size": [4, 6]})");
  Write("m/tokenizer/tokenizer_config.json", R"({"model_max_length": 77})");
  const PictureModelSpec picture = Only().picture;
  EXPECT_EQ(picture.size_multiple, 16u);
  EXPECT_EQ(picture.height, 64u);
  EXPECT_EQ(picture.width, 96u);
  EXPECT_EQ(picture.prompt_tokens, 77u);
}

TEST_F(RepositoryTest, ShallowVaeStillNeedsMultiplesOfEight) {
  WritePictureModel("m");
  Write("m/vae/config.json", R"({"block_out_channels": [8, 8]})");
  Write("m/unet/config.json", R"({"sample_size": 9})");
  EXPECT_EQ(Only().picture.size_multiple, 8u);
  EXPECT_EQ(Only().picture.width, 16u);
}

TEST_F(RepositoryTest, UnlimitedTokenizerLengthTakesTheEncoders) {
  WritePictureModel("m");
  Write("m/tokenizer/tokenizer_config.json", R"({"model_max_length": 1e30})");
  EXPECT_TRUE(Only().status.ok()) << Only().status;
  EXPECT_EQ(Only().picture.prompt_tokens, 512u);
}

TEST_F(RepositoryTest, OldDiffusersSampleSizeReadsAs64) {
  WritePictureModel("m");
  Write("m/unet/config.json", R"({"sample_size": 32, "_diffusers_version": "0.2.2"})");
  EXPECT_EQ(Only().picture.width, 512u);
  Write("m/unet/config.json", R"({"sample_size": 32, "_diffusers_version": "0.10.0"})");
  EXPECT_EQ(Only().picture.width, 256u);
}

TEST_F(RepositoryTest, AModelFolderServesItself) {
  Write("m/config.json", kGpt2);
  auto scan = ScanRepository((root_ / "m" / ".").string());
  ASSERT_TRUE(scan.ok()) << scan.status();
  ASSERT_EQ(scan->models.size(), 1u);
  EXPECT_EQ(scan->models[0].name, "m");
}

TEST_F(RepositoryTest, BrokenFoldersAreModelsWithAReason) {
  Write("m/config.json", kGpt2);
  const auto reason = [&](const std::string& file, const std::string& content) {
    Write(file, content);
    return std::string(Only().status.message());
  };
  EXPECT_THAT(reason("m/config.json", "{"), HasSubstr("config.json is not a JSON object"));
  EXPECT_THAT(reason("m/config.json", "[]"), HasSubstr("config.json is not a JSON object"));
  EXPECT_THAT(reason("m/config.json", R"({"model_type": "gpt2"})"), HasSubstr("lacks n_positions"));
  EXPECT_THAT(reason("m/config.json", R"({"architectures": ["MambaForCausalLM"]})"),
              AllOf(HasSubstr("\"MambaForCausalLM\"; served are "), HasSubstr("GPT2LMHeadModel")));
  EXPECT_THAT(
      reason("m/config.json", R"({"model_type": "gpt2", "n_positions": -4, "vocab_size": 5})"),
      HasSubstr("n_positions outside 1 to"));
  EXPECT_THAT(reason("m/config.json",
                     R"({"model_type": "gpt2", "n_positions": 4, "vocab_size": 5,
                         "eos_token_id": 5})"),
              HasSubstr("eos_token_id 5 outside its vocabulary of 5"));
  Write("m/config.json", kGpt2);
  EXPECT_THAT(reason("m/generation_config.json", R"({"top_p": "high"})"),
              HasSubstr("generation_config.json has top_p outside"));
}

TEST_F(RepositoryTest, PictureFoldersNameTheMissingPart) {
  WritePictureModel("m");
  fs::remove(root_ / "m/vae/config.json");
  EXPECT_THAT(std::string(Only().status.message()), HasSubstr("vae/config.json is missing"));
  fs::remove(root_ / "m/model_index.json");
  EXPECT_THAT(std::string(Only().status.message()),
              HasSubstr("model_index.json and config.json are missing"));
}

TEST_F(RepositoryTest, TheRepositoryMustBeAFolder) {
  EXPECT_EQ(ScanRepository((root_ / "none").string()).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(ScanRepository(root_.string())->models, IsEmpty());
}

TEST(ModelNameTest, OneToOneHundredTwentyEightPlainCharacters) {
  EXPECT_TRUE(IsModelName("Taiyi-Stable-Diffusion-1B_v0.1"));
  EXPECT_TRUE(IsModelName(std::string(128, 'a')));
  EXPECT_FALSE(IsModelName(std::string(129, 'a')));
  for (const char* name : {"", ".", "..", ".a", "a/b", "a b", "模型", "a\\b"}) {
    EXPECT_FALSE(IsModelName(name)) << name;
  }
}

TEST_F(RepositoryTest, ReadsTheLimitsOfARerankerWhereThereIsOne) {
  WritePictureModel("m");
  EXPECT_EQ(Only().picture.reranker_tokens, 0u);
  Write("m/model_index.json",
        R"({"_class_name": "StableDiffusionPipeline", "reranker": [null, null]})");
  EXPECT_TRUE(Only().status.ok());
  EXPECT_EQ(Only().picture.reranker_tokens, 0u);

  const auto name = [this](const char* class_name) {
    Write("m/model_index.json",
          std::string(R"({"_class_name": "StableDiffusionPipeline", "reranker": ["hanmo", ")") +
              class_name + "\"]}");
  };
  name("TaiyiCLIPModel");
  EXPECT_THAT(std::string(Only().status.message()), HasSubstr("reranker/config.json is missing"));
  Write("m/reranker/config.json", kBert);
  EXPECT_THAT(std::string(Only().status.message()),
              HasSubstr("reranker/config.json lacks text_config"));
  name("BertForSequenceClassification");
  EXPECT_TRUE(Only().status.ok()) << Only().status;
  EXPECT_EQ(Only().picture.reranker_tokens, 512u);
  EXPECT_EQ(Only().picture.reranker_vocabulary, 21128u);

  name("ChineseCLIPModel");
  Write("m/reranker/config.json", R"({"text_config": {"max_position_embeddings": 64}})");
  EXPECT_THAT(std::string(Only().status.message()),
              HasSubstr("reranker/config.json: text_config lacks vocab_size"));
  Write("m/reranker/config.json",
        R"({"text_config": {"vocab_size": 99, "max_position_embeddings": 64}})");
  Write("m/reranker/tokenizer_config.json", R"({"model_max_length": 52})");
  EXPECT_TRUE(Only().status.ok()) << Only().status;
  EXPECT_EQ(Only().picture.reranker_tokens, 52u);
  name("CLIPModel");
  EXPECT_THAT(std::string(Only().status.message()),
              HasSubstr("the reranker \"CLIPModel\"; ChineseCLIPModel, TaiyiCLIPModel"));
}

}  // namespace
}  // namespace hanmo
