// Devices that are known by their measured curves alone, and pictures to ask of them.
#ifndef HANMO_BENCH_SIMULATED_DEVICES_H_
#define HANMO_BENCH_SIMULATED_DEVICES_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "server/batcher/request.h"

namespace hanmo {

// Of rows whose pictures are so many pixels wide.
using StepSeconds = double(uint32_t rows, uint32_t width);

struct Device {
  const char* name;
  StepSeconds* step;    // denoising
  StepSeconds* decode;  // VAE
};

// Of "cpu", "h200" and "tiny".
const Device& FindDevice(const std::string& name);

struct Job {
  double at = 0;  // seconds
  PictureJob picture;
};

// What a picture takes alone.
double LoneSeconds(const Device& device, const PictureJob& job);

// Poisson arrivals; `load` is the part of the workers' time that they take one at a time.
std::vector<Job> MakeTrace(const Device& device, size_t requests, double load, uint32_t workers);

}  // namespace hanmo

#endif  // HANMO_BENCH_SIMULATED_DEVICES_H_
