// Folders of ERNIE-ViLG whose parts do not fit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>

#include "workers/torch_executor.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;

constexpr char kFolder[] = "tests/goldens/ernie_vilg/whole";

// A copy of the folder that may be changed.
class BrokenFolder {
 public:
  BrokenFolder() : path_(::testing::TempDir() + "/broken_ernie_vilg") {
    std::filesystem::remove_all(path_);
    std::filesystem::copy(kFolder, path_, std::filesystem::copy_options::recursive);
  }
  ~BrokenFolder() { std::filesystem::remove_all(path_); }

  void Set(const std::string& file, const std::string& key, const nlohmann::json& value) const {
    std::ifstream in(path_ + "/" + file);
    nlohmann::json json = nlohmann::json::parse(in);
    json[key] = value;
    std::ofstream(path_ + "/" + file) << json;
  }
  void Replace(const std::string& part, const std::string& by) const {
    std::filesystem::remove_all(path_ + "/" + part);
    std::filesystem::copy(by, path_ + "/" + part);
  }
  // Why it can't be loaded.
  std::string Error(TorchExecutor& executor) const {
    LoadCommand load;
    load.model = 1;
    load.path = path_;
    return std::string(executor.Load(load).status().message());
  }

 private:
  const std::string path_;
};

TEST(ErnieVilgLoadingTest, BadFoldersAreRefusedByTheirFault) {
  TorchExecutor executor(*ComputeDevice::Open("cpu"));
  const std::tuple<const char*, const char*, nlohmann::json, const char*> cases[] = {
      {"vqvae/config.json", "num_vq_embeddings", 47, "quantize.embedding.weight"},
      {"transformer/config.json", "image_vocab_size", 47, "embeddings.image_embeddings.weight"},
      {"transformer/config.json", "image_grid", {4, 5}, "embeddings.row_embeddings.weight"},
      {"transformer/config.json", "image_grid", {3}, "image_grid"},
      {"transformer/config.json", "norm_position", "sandwich",
       "encoder.layer.0.attention.LayerNorm.weight"},
      {"transformer/config.json", "tie_word_embeddings", false, "lm_head.decoder.weight"},
      {"transformer/config.json", "model_type", "bert", "model_type"},
      {"model_index.json", "vqvae", {"diffusers", "AutoencoderKL"}, "vqvae"},
      {"model_index.json", "transformer", {"transformers", "BertModel"}, "transformer"},
  };
  for (const auto& [file, key, value, message] : cases) {
    const BrokenFolder folder;
    folder.Set(file, key, value);
    EXPECT_THAT(folder.Error(executor), HasSubstr(message)) << file << " " << key;
  }
  const BrokenFolder folder;
  folder.Replace("vqvae", "tests/goldens/vqgan/f8");
  EXPECT_THAT(folder.Error(executor),
              HasSubstr("num_vq_embeddings: 64, the transformer's image_vocab_size 48 expected"));
}

}  // namespace
}  // namespace hanmo
