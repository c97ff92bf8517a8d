#include "workers/kernels/resize.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>

#include "workers/kernels/yield.h"

namespace hanmo {
namespace {

// Weights are fixed-point numbers with so many bits behind the point: sums of 8-bit pixels, of
// which weights are below 2 in magnitude, fit 32 bits.
constexpr int kFraction = 22;
// Of the cubic at scale 1, to each side.
constexpr double kSupport = 2;

// Keys' cubic with a = -1/2.
double Cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

// What one pixel of the output is made of.
struct Taps {
  int64_t first = 0;  // pixel of the input
  std::vector<int32_t> weights;
};

std::vector<Taps> TapsOf(int64_t from, int64_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double stretch = std::max(scale, 1.0);
  const double support = kSupport * stretch;
  std::vector<Taps> taps(static_cast<size_t>(to));
  std::vector<double> weights;
  for (int64_t i = 0; i < to; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    // Truncation, not floor, as there.
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const auto end = std::min(from, static_cast<int64_t>(center + support + 0.5));
    weights.clear();
    double sum = 0;
    for (int64_t x = first; x < end; ++x) {
      weights.push_back(Cubic((static_cast<double>(x) - center + 0.5) * (1.0 / stretch)));
      sum += weights.back();
    }
    Taps& pixel = taps[static_cast<size_t>(i)];
    pixel.first = first;
    for (const double weight : weights) {
      const double scaled = weight / sum * (1 << kFraction);
      pixel.weights.push_back(static_cast<int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5));
    }
  }
  return taps;
}

uint8_t Round(int32_t sum) { return static_cast<uint8_t>(std::clamp(sum >> kFraction, 0, 255)); }

// One pixel of the output from pixels `stride` bytes apart.
void Blend(const Taps& taps, const uint8_t* in, int64_t stride, uint8_t* out) {
  int32_t red = 1 << (kFraction - 1), green = red, blue = red;
  const uint8_t* pixel = in + taps.first * stride;
  for (const int32_t weight : taps.weights) {
    red += weight * pixel[0];
    green += weight * pixel[1];
    blue += weight * pixel[2];
    pixel += stride;
  }
  out[0] = Round(red);
  out[1] = Round(green);
  out[2] = Round(blue);
}

// One direction at a time; one of which the size stays is not touched.
std::vector<uint8_t> ResizeRows(const uint8_t* rgb, PictureSize from, int64_t width) {
  if (width == from.width) return {rgb, rgb + 3 * from.width * from.height};
  std::vector<uint8_t> resized(static_cast<size_t>(3 * width * from.height));
  const std::vector<Taps> taps = TapsOf(from.width, width);
  uint8_t* out = resized.data();
  for (int64_t y = 0; y < from.height; ++y) {
    const uint8_t* row = rgb + 3 * from.width * y;
    for (const Taps& pixel : taps) Blend(pixel, row, 3, std::exchange(out, out + 3));
  }
  return resized;
}

std::vector<uint8_t> ResizeColumns(const uint8_t* rgb, PictureSize from, int64_t height) {
  if (height == from.height) return {rgb, rgb + 3 * from.width * from.height};
  std::vector<uint8_t> resized(static_cast<size_t>(3 * from.width * height));
  uint8_t* out = resized.data();
  for (const Taps& row : TapsOf(from.height, height)) {
    for (int64_t x = 0; x < from.width; ++x) {
      Blend(row, rgb + 3 * x, 3 * from.width, std::exchange(out, out + 3));
    }
  }
  return resized;
}

}  // namespace

std::vector<uint8_t> ResizeBicubic(const uint8_t* rgb, PictureSize from, PictureSize to) {
  // The order matters, for between the two pixels are rounded.
  const int64_t lost_rows = from.height - to.height, lost_columns = from.width - to.width;
  if (lost_rows > 0 && lost_rows > 2 * lost_columns) {
    const std::vector<uint8_t> lowered = ResizeColumns(rgb, from, to.height);
    YieldPoint();
    return ResizeRows(lowered.data(), {from.width, to.height}, to.width);
  }
  const std::vector<uint8_t> narrowed = ResizeRows(rgb, from, to.width);
  YieldPoint();
  return ResizeColumns(narrowed.data(), {to.width, from.height}, to.height);
}

}  // namespace hanmo
