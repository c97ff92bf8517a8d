#include "workers/models/text_encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "workers/models/testing/golden.h"

namespace hanmo {
namespace {

using ::hanmo::testing::Golden;
using ::hanmo::testing::OpenFolder;
using ::hanmo::testing::RelativeError;
using ::testing::HasSubstr;

std::string Folder(const std::string& name) { return "tests/goldens/" + name; }

std::unique_ptr<TextEncoder> LoadEncoder(const std::string& name, at::ScalarType dtype) {
  Checkpoint checkpoint = OpenFolder(Folder(name), dtype);
  absl::StatusOr<std::unique_ptr<TextEncoder>> encoder = LoadTextEncoder(checkpoint, {});
  EXPECT_TRUE(encoder.ok()) << encoder.status();
  return *std::move(encoder);
}

class TextEncoderGoldenTest : public ::testing::TestWithParam<const char*> {};

TEST_P(TextEncoderGoldenTest, AnswersWhatTransformersAnswers) {
  Golden golden(Folder(GetParam()) + "/golden.safetensors");
  const at::Tensor ids = golden.Get("ids", at::kLong);
  const at::Tensor expected = golden.Get("hidden");
  const at::Tensor hidden = LoadEncoder(GetParam(), at::kFloat)->Encode(ids);
  EXPECT_LT(RelativeError(hidden, expected), 1e-5);
  const at::Tensor rough = LoadEncoder(GetParam(), at::kBFloat16)->Encode(ids);
  // bfloat16 has 8 bits.
  EXPECT_LT(RelativeError(rough, expected), 0.06);
}

TEST_P(TextEncoderGoldenTest, APromptIsTheSameInAnyCompany) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    SCOPED_TRACE(toString(dtype));
    const auto encoder = LoadEncoder(GetParam(), dtype);
    for (const int64_t length : {int64_t{1}, int64_t{3}, encoder->traits().max_length}) {
      at::manual_seed(length);
      const at::Tensor ids = at::randint(encoder->traits().vocabulary, {7, length}, at::kLong);
      const at::Tensor all = encoder->Encode(ids);
      for (const int64_t n : {1, 2, 3, 4}) {
        EXPECT_TRUE(encoder->Encode(ids.narrow(0, 3, n)).equal(all.narrow(0, 3, n)))
            << n << " prompts of " << length;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Checkpoints, TextEncoderGoldenTest,
                         ::testing::Values("bert/taiyi", "bert/masked_lm", "bert/anime", "clip/sd1",
                                           "clip/bare"));

// A copy of a golden folder with one key of config.json changed.
absl::Status LoadWith(const std::string& name, const std::string& key, nlohmann::json value) {
  const std::filesystem::path folder =
      std::filesystem::path(::testing::TempDir()) / "text_encoder_test";
  std::filesystem::remove_all(folder);
  std::filesystem::copy(Folder(name), folder);
  nlohmann::json config = nlohmann::json::parse(std::ifstream(folder / "config.json"));
  config[key] = std::move(value);
  std::ofstream(folder / "config.json") << config;
  Checkpoint checkpoint = OpenFolder(folder);
  return LoadTextEncoder(checkpoint, {}).status();
}

TEST(TextEncoderTest, NamesWhatItCannotServe) {
  const std::tuple<const char*, const char*, nlohmann::json, const char*> cases[] = {
      {"bert/taiyi", "architectures", {"T5EncoderModel"}, "T5EncoderModel"},
      {"bert/taiyi", "hidden_act", "mish", "hidden_act"},
      {"bert/taiyi", "num_attention_heads", 5, "num_attention_heads"},
      {"bert/taiyi", "hidden_size", 64, "embeddings.word_embeddings.weight"},
      {"bert/taiyi", "is_decoder", true, "is_decoder"},
      {"bert/taiyi", "num_hidden_layers", 3, "encoder.layer.2"},
      {"clip/sd1", "hidden_act", 3, "hidden_act"},
      {"clip/sd1", "use_attention_mask", true, "use_attention_mask"},
      {"clip/sd1", "vocab_size", -1, "vocab_size"},
      {"clip/sd1", "max_position_embeddings", 21, "embeddings.position_embedding.weight"},
  };
  for (const auto& [name, key, value, mention] : cases) {
    const absl::Status status = LoadWith(name, key, value);
    EXPECT_THAT(std::string(status.message()), HasSubstr(mention)) << key;
  }
}

}  // namespace
}  // namespace hanmo
