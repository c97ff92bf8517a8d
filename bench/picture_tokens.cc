// What a picture token costs in a model of ERNIE-ViLG 1.0's true width: 4096 wide, 64 heads, an
// inner width of 16384, 32 x 32 tokens, bfloat16; with 2 and with 4 of its 48 layers, whose
// difference is what layers cost. Prints one line of JSON per number of layers, attention and
// batch.
//
//   bench_picture_tokens THREADS
//
// Weights are zeros in a sparse file: time does not depend on them. The cache is written before, so
// that reading it costs what it does in service.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "workers/models/ernie_vilg.h"

namespace hanmo {
namespace {

constexpr int64_t kWidth = 4096, kHeads = 64, kInner = 16384, kSide = 32, kCodes = 8192;
constexpr int64_t kWords = 18000, kTextTokens = 64, kSourceTokens = 32;
constexpr int kSteps = 12;

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

// Seconds of one step of `batch` pictures at each of some tokens in the middle; the median.
double StepSeconds(const ErnieVilg& model, KvCache& cache, int64_t batch) {
  const int64_t pages = cache.pages / batch;
  const int64_t begin = kSourceTokens + kSide * kSide / 2;
  const std::vector<int32_t> token = {static_cast<int32_t>(kWords)};
  std::vector<std::vector<int32_t>> tables(batch, std::vector<int32_t>(pages));
  for (int64_t b = 0; b < batch; ++b) {
    std::iota(tables[b].begin(), tables[b].end(), static_cast<int32_t>(b * pages));
  }
  std::vector<double> seconds;
  for (int step = 0; step < kSteps; ++step) {
    std::vector<VilgRow> rows;
    for (int64_t b = 0; b < batch; ++b) {
      rows.push_back({.tokens = token,
                      .start = begin + step,
                      .source_tokens = kSourceTokens,
                      .paints = true,
                      .page_table = tables[b]});
    }
    const auto start = std::chrono::steady_clock::now();
    const auto logits = model.Run(rows, cache);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    if (!logits.ok()) {
      std::cerr << logits.status() << "\n";
      return 0;
    }
    seconds.push_back(taken.count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2];
}

int Main(int threads) {
  at::set_num_threads(threads);
  const at::NoGradGuard no_grad;
  const std::string folder =
      std::filesystem::temp_directory_path() / ("picture_tokens." + std::to_string(getpid()));
  for (const int64_t layers : {2, 4}) {
    for (const bool sparse : {true, false}) {
      WriteFolder(folder, layers, sparse);
      auto checkpoint = Checkpoint::Open(folder, {.dtype = at::kBFloat16});
      auto model = checkpoint.ok() ? ErnieVilg::Load(*checkpoint) : checkpoint.status();
      std::filesystem::remove_all(folder);
      if (!model.ok()) {
        std::cerr << model.status() << "\n";
        return 1;
      }
      for (const int64_t batch : {1, 4, 16}) {
        KvCache cache = (*model)->MakeCache(batch * (((*model)->context_tokens() + 15) / 16));
        for (const auto* side : {&cache.keys, &cache.values}) {
          for (const at::Tensor& tensor : *side) tensor.fill_(0.01);
        }
        std::cout << nlohmann::json({{"layers", layers},
                                     {"attention", sparse ? "sparse" : "dense"},
                                     {"batch", batch},
                                     {"step_seconds", StepSeconds(**model, cache, batch)}})
                  << std::endl;
      }
    }
  }
  return 0;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: bench_picture_tokens THREADS\n";
    return 2;
  }
  return hanmo::Main(std::stoi(argv[1]));
}
