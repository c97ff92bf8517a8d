// Writes texts with one text model's folder on the worker's text pipeline, on command, and prints
// what each run took: for bench/prefix.py, bench/speculation.py and bench/guides.py, which
// alternate the sides. "seconds" are those of decoding, from the first token of all texts on;
// "first_seconds" come before.
//
//   bench_text_reuse FOLDER DTYPE THREADS
//
// Commands on standard input, one line each, answered with one line of JSON:
//   first PREFIX SUFFIX WARM   time to the first token of a prompt that begins with PREFIX known
//                              tokens and ends with SUFFIX of its own; WARM is 1 when an earlier
//                              prompt has left the prefix in its pages
//   write BATCH TOKENS DRAFTS ID ...
//                              BATCH times the prompt of those ids, TOKENS new tokens greedily,
//                              guessing up to DRAFTS in each row
//   draw BATCH TOKENS GUIDE    BATCH texts of TOKENS new tokens, drawn at temperature 1, each under
//                              the guide (server/text/guide.h), which lets them go on; or "free"
#include <ATen/Parallel.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "workers/text_pipeline.h"

namespace hanmo {
namespace {

constexpr uint32_t kPageTokens = TextModel::kPageTokens;
constexpr uint32_t kChunk = 512;

class Clock {
 public:
  // Seconds since it was made.
  double Wall() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  // Wall and processor time since it was made, as two JSON fields.
  std::string Read() const {
    std::ostringstream out;
    out << R"("seconds": )" << Wall() << R"(, "cpu_seconds": )"
        << static_cast<double>(std::clock() - cpu_start_) / CLOCKS_PER_SEC;
    return out.str();
  }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const std::clock_t cpu_start_ = std::clock();
};

// One text, and what of it is run.
struct Stream {
  SampleHandle sample = 0;
  TextJob job;
  uint32_t known = 0;
  uint32_t cached = 0;
  std::vector<uint32_t> pages;  // all that it will need
  uint32_t pages_sent = 0;
  std::vector<uint32_t> tokens;
  uint32_t drafted = 0;
  bool ended() const { return tokens.size() >= job.max_tokens; }
};

class Writer {
 public:
  explicit Writer(std::unique_ptr<TextPipeline> pipeline) : pipeline_(std::move(pipeline)) {}

  Stream Begin(TextJob job, uint32_t cached, uint32_t first_page) {
    Stream stream;
    stream.sample = next_sample_++;
    stream.known = static_cast<uint32_t>(job.prompt.size());
    stream.cached = cached;
    const uint32_t positions = stream.known + job.max_tokens - 1;
    for (uint32_t i = 0; i * kPageTokens < positions; ++i) {
      // The shared prefix lies in the first pages of all.
      stream.pages.push_back(i * kPageTokens < cached ? i : first_page + i);
    }
    pipeline_->Begin(stream.sample, job, {{}, "", cached});
    stream.job = std::move(job);
    return stream;
  }

  // One step of all streams that have not ended. False on an error, which it prints.
  bool Step(std::vector<Stream>& streams, uint32_t drafts) {
    hanmo::Step step;
    step.kind = StepKind::kText;
    std::vector<Stream*> aboard;
    for (Stream& stream : streams) {
      if (stream.ended()) continue;
      const uint32_t count = std::min(kChunk, stream.known - stream.cached);
      Row row;
      row.sample = stream.sample;
      row.prefill_tokens = count > 1 ? count : 0;
      row.draft_tokens = count > 1 ? 0 : drafts;
      row.new_pages.assign(stream.pages.begin() + stream.pages_sent, stream.pages.end());
      stream.pages_sent = static_cast<uint32_t>(stream.pages.size());
      stream.cached += count;
      step.rows.push_back(std::move(row));
      aboard.push_back(&stream);
    }
    std::vector<RowResult> rows;
    absl::Status status = pipeline_->Run(step, &rows);
    for (size_t i = 0; i < aboard.size() && status.ok(); ++i) {
      status = rows[i].status;
      for (const Token& token : rows[i].tokens) aboard[i]->tokens.push_back(token.id);
      aboard[i]->known += static_cast<uint32_t>(rows[i].tokens.size());
      if (!rows[i].tokens.empty()) aboard[i]->cached = aboard[i]->known - 1;
      aboard[i]->drafted += rows[i].drafted;
    }
    if (!status.ok()) std::cerr << status << "\n";
    return status.ok();
  }

  bool First(uint32_t prefix, uint32_t suffix, bool warm) {
    TextJob job;
    const auto vocabulary = pipeline_->loaded().vocabulary_size;
    for (uint32_t i = 0; i < prefix; ++i) job.prompt.push_back((i * 104729 + 12345) % vocabulary);
    for (uint32_t i = 0; i < suffix; ++i) job.prompt.push_back((i * 7919 + 77) % vocabulary);
    job.sampling.temperature = 0;
    job.sampling.logprobs = 0;
    job.max_tokens = 1;
    const Clock clock;
    const uint32_t pages = (prefix + suffix) / kPageTokens + 1;
    std::vector<Stream> streams;
    streams.push_back(Begin(job, warm ? prefix / kPageTokens * kPageTokens : 0, warm ? pages : 0));
    uint32_t steps = 0;
    for (; !streams[0].ended(); ++steps) {
      if (!Step(streams, 0)) return false;
    }
    std::cout << "{" << clock.Read() << R"(, "steps": )" << steps << R"(, "token": )"
              << streams[0].tokens[0] << "}" << std::endl;
    pipeline_->Drop(streams[0].sample);
    return true;
  }

  bool Write(uint32_t batch, uint32_t drafts, TextJob job) {
    const Clock begin;
    std::vector<Stream> streams;
    const uint32_t pages =
        (static_cast<uint32_t>(job.prompt.size()) + job.max_tokens) / kPageTokens + 1;
    for (uint32_t b = 0; b < batch; ++b) {
      job.sampling.seed = b;
      streams.push_back(Begin(job, 0, b * pages));
    }
    // All prompts first: the time is that of decoding.
    while (streams.back().tokens.empty()) {
      if (!Step(streams, 0)) return false;
    }
    const double first = begin.Wall();
    const Clock clock;
    uint32_t steps = 0;
    const auto ended = [](const Stream& stream) { return stream.ended(); };
    for (; !std::all_of(streams.begin(), streams.end(), ended); ++steps) {
      if (!Step(streams, drafts)) return false;
    }
    std::cout << "{" << clock.Read() << R"(, "first_seconds": )" << first << R"(, "steps": )"
              << steps << R"(, "drafted": )" << streams[0].drafted << R"(, "tokens": [)";
    for (size_t i = 0; i < streams[0].tokens.size(); ++i) {
      std::cout << (i > 0 ? ", " : "") << streams[0].tokens[i];
    }
    std::cout << "]}" << std::endl;
    for (const Stream& stream : streams) pipeline_->Drop(stream.sample);
    return true;
  }

 private:
  std::unique_ptr<TextPipeline> pipeline_;
  SampleHandle next_sample_ = 1;
};

bool Obey(const std::string& line, Writer& writer) {
  std::istringstream words(line);
  std::string command;
  words >> command;
  if (command == "first") {
    uint32_t prefix, suffix;
    bool warm;
    return words >> prefix >> suffix >> warm && writer.First(prefix, suffix, warm);
  }
  uint32_t batch, drafts;
  TextJob job;
  if (command == "draw") {
    std::string guide;
    if (!(words >> batch >> job.max_tokens >> std::ws) || !std::getline(words, guide)) return false;
    job.prompt = {1, 2, 3, 4};
    if (guide != "free") job.guide = std::make_shared<const std::string>(guide);
    return writer.Write(batch, 0, std::move(job));
  }
  job.sampling.temperature = 0;
  if (command != "write" || !(words >> batch >> job.max_tokens >> drafts)) return false;
  for (uint32_t id; words >> id;) job.prompt.push_back(id);
  return writer.Write(batch, drafts, job);
}

int Main(const std::string& folder, const std::string& dtype, int threads) {
  at::set_num_threads(threads);
  const c10::InferenceMode inference;
  const ComputeDevice device = *ComputeDevice::Open("cpu");
  PipelineOptions options;
  options.folder = folder;
  options.device = &device;
  options.dtype = dtype == "bfloat16" ? at::kBFloat16 : dtype == "float16" ? at::kHalf : at::kFloat;
  absl::StatusOr<std::unique_ptr<TextPipeline>> pipeline = TextPipeline::Load(options);
  if (!pipeline.ok()) {
    std::cerr << pipeline.status() << "\n";
    return 1;
  }
  Writer writer(*std::move(pipeline));
  for (std::string line; std::getline(std::cin, line);) {
    if (!Obey(line, writer)) return 1;
  }
  return 0;
}

}  // namespace
}  // namespace hanmo

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: bench_text_reuse FOLDER float32|float16|bfloat16 THREADS\n";
    return 2;
  }
  return hanmo::Main(argv[1], argv[2], std::stoi(argv[3]));
}
