// Generates greedily with one text model's folder, on command, and prints what each run took: our
// side of bench/decode.py, which alternates it with the other side.
//
//   bench_decode FOLDER DTYPE THREADS
//
// Commands on standard input, one line each, answered with one line of JSON:
//   run BATCH PROMPT TOKENS   BATCH prompts of PROMPT tokens, TOKENS new tokens each
//   logits PROMPT PATH        writes the last logits of one prompt as raw float32
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "workers/models/text_model.h"
#include "workers/models/token_sampler.h"

namespace hanmo {
namespace {

// As bench/decode.py's: token i of prompt b.
int32_t PromptToken(int64_t b, int64_t i, int64_t vocab) {
  return static_cast<int32_t>((b * 7919 + i * 104729 + 12345) % vocab);
}

struct Stream {
  std::vector<int32_t> tokens;
  std::vector<int32_t> pages;
  std::vector<uint32_t> generated;
};

class Decoder {
 public:
  explicit Decoder(std::unique_ptr<TextModel> model) : model_(std::move(model)) {}

  // Returns false on an error, which it prints.
  bool Step(std::vector<Stream>& streams, KvCache& cache, int64_t cached) {
    std::vector<TextRow> rows;
    for (const Stream& stream : streams) {
      rows.push_back({.tokens = absl::MakeConstSpan(stream.tokens).subspan(cached),
                      .start = cached,
                      .page_table = stream.pages});
    }
    const auto logits = model_->Run(rows, cache);
    if (!logits.ok()) {
      std::cerr << logits.status() << "\n";
      return false;
    }
    last_ = logits->values;
    const TokenSampling greedy{.temperature = 0};
    for (size_t i = 0; i < streams.size(); ++i) {
      float* row = last_.data_ptr<float>() + static_cast<int64_t>(i) * last_.stride(0);
      const auto token = SampleToken({row, static_cast<size_t>(model_->shape().vocab_size)}, greedy,
                                     {.generated = streams[i].generated}, {});
      if (!token.ok()) {
        std::cerr << token.status() << "\n";
        return false;
      }
      streams[i].tokens.push_back(static_cast<int32_t>(token->id));
      streams[i].generated.push_back(token->id);
    }
    return true;
  }

  std::vector<Stream> Prompts(int64_t batch, int64_t prompt, int64_t positions) const {
    std::vector<Stream> streams(batch);
    int32_t page = 0;
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t i = 0; i < prompt; ++i) {
        streams[b].tokens.push_back(PromptToken(b, i, model_->shape().vocab_size));
      }
      for (int64_t t = 0; t < positions; t += TextModel::kPageTokens)
        streams[b].pages.push_back(page++);
    }
    return streams;
  }

  bool Run(int64_t batch, int64_t prompt, int64_t tokens) {
    std::vector<Stream> streams = Prompts(batch, prompt, prompt + tokens);
    KvCache cache = model_->MakeCache(batch * static_cast<int64_t>(streams[0].pages.size()));
    const auto start = std::chrono::steady_clock::now();
    const std::clock_t cpu_start = std::clock();
    std::chrono::duration<double> first{};
    for (int64_t i = 0; i < tokens; ++i) {
      if (!Step(streams, cache, i == 0 ? 0 : prompt + i - 1)) return false;
      if (i == 0) first = std::chrono::steady_clock::now() - start;
    }
    const std::chrono::duration<double> all = std::chrono::steady_clock::now() - start;
    const double cpu = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
    std::cout << R"({"seconds": )" << all.count() << R"(, "cpu_seconds": )" << cpu
              << R"(, "first_token_seconds": )" << first.count() << "}" << std::endl;
    return true;
  }

  bool WriteLogits(int64_t prompt, const std::string& path) {
    std::vector<Stream> streams = Prompts(1, prompt, prompt);
    KvCache cache = model_->MakeCache(static_cast<int64_t>(streams[0].pages.size()));
    if (!Step(streams, cache, 0)) return false;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(last_.data_ptr()), model_->shape().vocab_size * 4);
    std::cout << "{}" << std::endl;
    return true;
  }

 private:
  std::unique_ptr<TextModel> model_;
  at::Tensor last_;
};

int Main(const std::string& folder, const std::string& dtype, int threads) {
  at::set_num_threads(threads);
  const at::NoGradGuard no_grad;
  auto checkpoint = Checkpoint::Open(folder, {.dtype = dtype == "bfloat16"  ? at::kBFloat16
                                                       : dtype == "float16" ? at::kHalf
                                                                            : at::kFloat});
  if (!checkpoint.ok()) {
    std::cerr << checkpoint.status() << "\n";
    return 1;
  }
  auto model = TextModel::Load(*checkpoint);
  if (!model.ok()) {
    std::cerr << model.status() << "\n";
    return 1;
  }
  Decoder decoder(*std::move(model));
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, path;
    int64_t batch = 0, prompt = 0, tokens = 0;
    words >> command;
    bool done = false;
    if (command == "run" && words >> batch >> prompt >> tokens) {
      done = decoder.Run(batch, prompt, tokens);
    } else if (command == "logits" && words >> prompt >> path) {
      done = decoder.WriteLogits(prompt, path);
    }
    if (!done) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: bench_decode FOLDER float32|float16|bfloat16 THREADS\n";
    return 2;
  }
  return hanmo::Main(argv[1], argv[2], std::stoi(argv[3]));
}
