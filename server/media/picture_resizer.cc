#include "server/media/picture_resizer.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace hanmo {
namespace {

struct Window {
  uint32_t x = 0;
  uint32_t y = 0;
  uint32_t width = 0;
  uint32_t height = 0;
};

// The largest part of this shape, in the middle.
Window MiddleOf(const Pixels& pixels, uint32_t width, uint32_t height) {
  Window part{0, 0, pixels.width, pixels.height};
  const uint64_t wide = uint64_t{pixels.width} * height;
  const uint64_t tall = uint64_t{pixels.height} * width;
  if (wide > tall) {
    part.width = static_cast<uint32_t>(std::max<uint64_t>(1, (tall + height / 2) / height));
  } else {
    part.height = static_cast<uint32_t>(std::max<uint64_t>(1, (wide + width / 2) / width));
  }
  part.x = (pixels.width - part.width) / 2;
  part.y = (pixels.height - part.height) / 2;
  return part;
}

// Catmull and Rom's cubic.
double Cubic(double x) {
  x = std::abs(x);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  if (x < 2) return ((-0.5 * x + 2.5) * x - 4) * x + 2;
  return 0;
}

// What one pixel of the target is made of, along one axis.
struct Taps {
  uint32_t first = 0;
  std::vector<float> weights;  // of source pixels from `first` on; their sum is 1
};

// Shrinking widens the cubic, so that every source pixel counts.
std::vector<Taps> MakeTaps(uint32_t from, uint32_t to) {
  const double scale = static_cast<double>(from) / to;
  const double stretch = std::max(1.0, scale);
  std::vector<Taps> all(to);
  for (uint32_t i = 0; i < to; ++i) {
    const double centre = (i + 0.5) * scale;
    const auto first = static_cast<uint32_t>(std::max(0.0, centre - 2 * stretch + 0.5));
    const auto end = static_cast<uint32_t>(std::min<double>(from, centre + 2 * stretch + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (uint32_t k = first; k < end; ++k) {
      weights.push_back(Cubic((k + 0.5 - centre) / stretch));
      sum += weights.back();
    }
    all[i].first = first;
    for (const double weight : weights) {
      all[i].weights.push_back(static_cast<float>(weight / sum));
    }
  }
  return all;
}

// Rows of the window, each `width` pixels now.
std::vector<float> ShrinkRows(const Pixels& pixels, const Window& part, uint32_t width) {
  const std::vector<Taps> taps = MakeTaps(part.width, width);
  std::vector<float> rows(size_t{3} * part.height * width);
  float* out = rows.data();
  for (uint32_t y = 0; y < part.height; ++y) {
    const size_t row = size_t{pixels.width} * (part.y + y) + part.x;
    for (const Taps& tap : taps) {
      const char* in = &pixels.rgb[3 * (row + tap.first)];
      float sum[3] = {0, 0, 0};
      for (const float weight : tap.weights) {
        for (int c = 0; c < 3; ++c) sum[c] += weight * static_cast<unsigned char>(in[c]);
        in += 3;
      }
      out = std::copy(sum, sum + 3, out);
    }
  }
  return rows;
}

Pixels ShrinkColumns(const std::vector<float>& rows, const Window& part, uint32_t width,
                     uint32_t height) {
  Pixels pixels{width, height, {}};
  pixels.rgb.resize(size_t{3} * width * height);
  char* out = pixels.rgb.data();
  const size_t values = size_t{3} * width;
  std::vector<float> sums(values);
  for (const Taps& tap : MakeTaps(part.height, height)) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    const float* in = rows.data() + values * tap.first;
    for (const float weight : tap.weights) {
      for (size_t i = 0; i < values; ++i) sums[i] += weight * in[i];
      in += values;
    }
    for (const float sum : sums) {
      *out++ =
          static_cast<char>(static_cast<unsigned char>(std::lround(std::clamp(sum, 0.0f, 255.0f))));
    }
  }
  return pixels;
}

Pixels Cut(const Pixels& pixels, const Window& part) {
  Pixels cut{part.width, part.height, {}};
  cut.rgb.reserve(size_t{3} * part.width * part.height);
  for (uint32_t y = 0; y < part.height; ++y) {
    const size_t row = size_t{pixels.width} * (part.y + y) + part.x;
    cut.rgb.append(pixels.rgb, 3 * row, size_t{3} * part.width);
  }
  return cut;
}

}  // namespace

Pixels FitPicture(const Pixels& pixels, uint32_t width, uint32_t height) {
  const Window part = MiddleOf(pixels, width, height);
  if (part.width == width && part.height == height) return Cut(pixels, part);
  return ShrinkColumns(ShrinkRows(pixels, part, width), part, width, height);
}

}  // namespace hanmo
