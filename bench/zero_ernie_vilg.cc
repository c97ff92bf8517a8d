#include "bench/zero_ernie_vilg.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "workers/checkpoint/checkpoint.h"

namespace hanmo {
namespace {

constexpr int64_t kWidth = 4096, kHeads = 64, kInner = 16384, kSide = 32, kCodes = 8192;
constexpr int64_t kWords = 18000, kTextTokens = 64;

nlohmann::json ConfigOf(int64_t layers, bool sparse) {
  nlohmann::json config = {{"model_type", "ernie_vilg"},
                           {"text_vocab_size", kWords},
                           {"image_vocab_size", kCodes},
                           {"hidden_size", kWidth},
                           {"num_hidden_layers", layers},
                           {"num_attention_heads", kHeads},
                           {"intermediate_size", kInner},
                           {"norm_position", "pre"},
                           {"max_text_length", kTextTokens},
                           {"image_grid", {kSide, kSide}},
                           {"cls_token_id", 1},
                           {"sep_token_id", 2},
                           {"pad_token_id", 0},
                           {"boi_token_id", 3},
                           {"bot_token_id", 4}};
  if (sparse) config["attention_pattern"] = nlohmann::json::object();
  return config;
}

// A safetensors file whose tensors are all zero.
class ZeroFile {
 public:
  void Add(const std::string& name, const std::vector<int64_t>& shape) {
    const int64_t elements =
        std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
    header_[name] = {
        {"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {bytes_, bytes_ + 2 * elements}}};
    bytes_ += 2 * elements;
  }
  void AddLinear(const std::string& name, int64_t in, int64_t out) {
    Add(name + ".weight", {out, in});
    Add(name + ".bias", {out});
  }
  void AddNorm(const std::string& name) {
    Add(name + ".weight", {kWidth});
    Add(name + ".bias", {kWidth});
  }
  void Write(const std::string& path) const {
    const std::string header = header_.dump();
    const uint64_t length = header.size();
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), 8);
    file << header;
    file.close();
    std::filesystem::resize_file(path, 8 + length + static_cast<uint64_t>(bytes_));
  }

 private:
  nlohmann::json header_ = nlohmann::json::object();
  int64_t bytes_ = 0;
};

void WriteFolder(const std::string& folder, int64_t layers, bool sparse) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder + "/config.json") << ConfigOf(layers, sparse);
  ZeroFile file;
  const std::pair<const char*, int64_t> tables[] = {{"word_embeddings", kWords},
                                                    {"image_embeddings", kCodes},
                                                    {"position_embeddings", kTextTokens + 1},
                                                    {"row_embeddings", kSide},
                                                    {"column_embeddings", kSide},
                                                    {"token_type_embeddings", 4}};
  for (const auto& [name, rows] : tables) {
    file.Add("embeddings." + std::string(name) + ".weight", {rows, kWidth});
  }
  file.AddNorm("embeddings.LayerNorm");
  for (int64_t i = 0; i < layers; ++i) {
    const std::string layer = "encoder.layer." + std::to_string(i) + ".";
    for (const char* part : {"self.query", "self.key", "self.value", "output.dense"}) {
      file.AddLinear(layer + "attention." + part, kWidth, kWidth);
    }
    file.AddNorm(layer + "attention.output.LayerNorm");
    file.AddLinear(layer + "intermediate.dense", kWidth, kInner);
    file.AddLinear(layer + "output.dense", kInner, kWidth);
    file.AddNorm(layer + "output.LayerNorm");
  }
  file.AddNorm("encoder.LayerNorm");
  file.AddLinear("lm_head.dense", kWidth, kWidth);
  file.AddNorm("lm_head.LayerNorm");
  file.Add("lm_head.decoder.bias", {kWords});
  file.AddLinear("image_head", kWidth, kCodes);
  file.Write(folder + "/model.safetensors");
}

}  // namespace

absl::StatusOr<std::unique_ptr<ErnieVilg>> LoadZeroErnieVilg(int64_t layers, bool sparse) {
  const std::string folder =
      std::filesystem::temp_directory_path() / ("zero_ernie_vilg." + std::to_string(getpid()));
  WriteFolder(folder, layers, sparse);
  auto checkpoint = Checkpoint::Open(folder, {.dtype = at::kBFloat16});
  auto model = checkpoint.ok() ? ErnieVilg::Load(*checkpoint) : checkpoint.status();
  std::filesystem::remove_all(folder);
  return model;
}

void Touch(KvCache& cache) {
  for (const auto* side : {&cache.keys, &cache.values}) {
    for (const at::Tensor& tensor : *side) tensor.fill_(0.01);
  }
}

}  // namespace hanmo
