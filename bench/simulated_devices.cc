#include "bench/simulated_devices.h"

#include <algorithm>
#include <iterator>
#include <random>

#include "server/batcher/cost.h"

namespace hanmo {
namespace {

// Stable Diffusion 1.x in bfloat16 on two cores (diffusers 0.42, torch 2.11): 256 pixels take 1.07
// s for one row and 1.74 s for two, 512 pixels 3.9 s for each row.
double CpuStep(uint32_t rows, uint32_t width) {
  return width <= 256 ? 0.4 + 0.67 * rows : 3.9 * rows;
}

// Throughput against one row on an H200 at 512 pixels: 1.82 at 2, 2.77 at 4, 3.14 at 8, 3.21 at 16
// (Qwen-Image, SGLang pull request 22183). 256 pixels are taken for a quarter of a row.
double H200Step(uint32_t rows, uint32_t width) {
  static constexpr double kRows[] = {0, 1, 2, 4, 8, 16};
  static constexpr double kTime[] = {0.7, 1, 2 / 1.82, 4 / 2.77, 8 / 3.14, 16 / 3.21};
  const double load = width <= 256 ? rows / 4.0 : rows;
  const auto* above = std::upper_bound(std::begin(kRows), std::end(kRows), load);
  const auto i = std::min<size_t>(above - std::begin(kRows), std::size(kRows) - 1);
  const double slope = (kTime[i] - kTime[i - 1]) / (kRows[i] - kRows[i - 1]);
  return 0.02 * (kTime[i - 1] + slope * (load - kRows[i - 1]));
}

// A quarter of the pixels are decoded in a quarter of the time.
double CpuDecode(uint32_t rows, uint32_t width) { return 0.3 * CpuStep(rows, width); }
double H200Decode(uint32_t rows, uint32_t width) { return 0.3 * H200Step(rows, width); }

// taiyi-sd-tiny on two cores of an AMD EPYC, 64 and 128 pixels in place of 256 and 512: a step
// costs more for itself than for its rows.
double TinyStep(uint32_t rows, uint32_t width) {
  return width <= 256 ? 0.0050 + 0.00095 * rows : 0.0046 + 0.0030 * rows;
}
double TinyDecode(uint32_t rows, uint32_t width) { return (width <= 256 ? 0.0056 : 0.021) * rows; }

constexpr Device kDevices[] = {
    {"cpu", CpuStep, CpuDecode}, {"h200", H200Step, H200Decode}, {"tiny", TinyStep, TinyDecode}};

}  // namespace

const Device& FindDevice(const std::string& name) {
  return *std::find_if(std::begin(kDevices), std::end(kDevices),
                       [&](const Device& known) { return known.name == name; });
}

double LoneSeconds(const Device& device, const PictureJob& job) {
  return job.steps * device.step(RowsOf(job), job.width) + device.decode(1, job.width);
}

std::vector<Job> MakeTrace(const Device& device, size_t requests, double load, uint32_t workers) {
  std::mt19937_64 random(1);
  std::vector<Job> jobs(requests);
  double work = 0;
  for (Job& job : jobs) {
    const double kind = std::uniform_real_distribution<>()(random);
    job.picture.steps = kind < 0.4 ? 4 : kind < 0.8 ? 20 : 50;
    job.picture.width = job.picture.height = random() % 2 ? 256 : 512;
    job.picture.guidance = random() % 2 ? 7.5f : 1.0f;
    job.picture.prompt = {1};
    work += LoneSeconds(device, job.picture);
  }
  const double rate = load * workers * static_cast<double>(requests) / work;
  double now = 0;
  for (Job& job : jobs) job.at = now += std::exponential_distribution<>(rate)(random);
  return jobs;
}

}  // namespace hanmo
