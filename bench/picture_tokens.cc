// What a picture token costs in a model of ERNIE-ViLG 1.0's true width (zero_ernie_vilg.h), with 2
// and with 4 of its 48 layers, whose difference is what layers cost. Prints one line of JSON per
// number of layers, attention and batch.
//
//   bench_picture_tokens THREADS
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <iostream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "bench/zero_ernie_vilg.h"

namespace hanmo {
namespace {

constexpr int64_t kSourceTokens = 32;
constexpr int kSteps = 12;

// Seconds of one step of `batch` pictures at each of some tokens in the middle; the median.
double StepSeconds(const ErnieVilg& model, KvCache& cache, int64_t batch) {
  const int64_t pages = cache.pages / batch;
  const int64_t begin = kSourceTokens + model.config().picture_tokens() / 2;
  const std::vector<int32_t> token = {static_cast<int32_t>(model.config().text_vocabulary)};
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
  for (const int64_t layers : {2, 4}) {
    for (const bool sparse : {true, false}) {
      const auto model = LoadZeroErnieVilg(layers, sparse);
      if (!model.ok()) {
        std::cerr << model.status() << "\n";
        return 1;
      }
      for (const int64_t batch : {1, 4, 16}) {
        KvCache cache = (*model)->MakeCache(batch * (((*model)->context_tokens() + 15) / 16));
        Touch(cache);
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
