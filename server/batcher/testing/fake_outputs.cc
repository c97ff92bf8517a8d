#include "server/batcher/testing/fake_outputs.h"

#include <numeric>
#include <type_traits>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace hanmo::testing {

uint64_t Mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t PaintStart(const PictureJob& job) {
  return Mix(job.seed + 977 * job.width + std::accumulate(job.prompt.begin(), job.prompt.end(), 1));
}

uint32_t TokenOf(const TextJob& job, uint32_t position) {
  const uint64_t prompt = std::accumulate(job.prompt.begin(), job.prompt.end(), uint64_t{7});
  return 1000 + Mix(job.sampling.seed * 1315423911 + prompt * 31 + position) % 1000;
}

std::string PictureOf(const PictureJob& job) {
  uint64_t paint = PaintStart(job);
  for (uint32_t i = 0; i < job.steps; ++i) paint = PaintStep(paint, i);
  return absl::StrCat(paint);
}

std::string PictureOf(const TextJob& job) {
  std::vector<uint32_t> tokens;
  for (uint32_t i = 0; i < job.max_tokens; ++i) tokens.push_back(TokenOf(job, i));
  return absl::StrJoin(tokens, " ");
}

uint64_t SeedOf(const SampleJob& job) {
  return std::visit(
      [](const auto& j) {
        if constexpr (std::is_same_v<std::decay_t<decltype(j)>, TextJob>)
          return j.sampling.seed;
        else
          return j.seed;
      },
      job);
}

const std::vector<uint32_t>& ScorePromptOf(const SampleJob& job) {
  return std::visit([](const auto& j) -> auto& { return j.score_prompt; }, job);
}

float ScoreOf(const SampleJob& job) {
  return static_cast<float>(Mix(SeedOf(job) + ScorePromptOf(job).size()) % 2001) / 1000 - 1;
}

}  // namespace hanmo::testing
