#include "workers/nn/norm.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "workers/kernels/group_norm.h"
#include "workers/nn/onednn.h"
#include "workers/nn/parts.h"

namespace hanmo {
namespace {

// Pixels that one task sums: long enough to amortise it, short enough that float sums stay exact.
constexpr int64_t kChunk = 64;

// A picture batch as rows of pixels.
struct Pixels {
  int64_t count;  // pictures
  int64_t each;   // pixels of a picture
  int64_t channels;
  int64_t chunks;  // of a picture

  explicit Pixels(const at::Tensor& x)
      : count(x.size(0)),
        each(x.size(2) * x.size(3)),
        channels(x.size(1)),
        chunks((each + kChunk - 1) / kChunk) {}
};

// Calls run(picture, chunk, first pixel, pixels) for all chunks, in parallel, with yield points.
template <typename Run>
void ForEachChunk(const Pixels& pixels, const Run& run) {
  const auto some =
      static_cast<int64_t>(PartElements() / static_cast<double>(kChunk * pixels.channels));
  ForEachPart(pixels.count * pixels.chunks, some, 1, [&](int64_t first_task, int64_t tasks) {
    at::parallel_for(first_task, first_task + tasks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t chunk = task % pixels.chunks;
        const int64_t first = chunk * kChunk;
        run(task / pixels.chunks, chunk, first, std::min(kChunk, pixels.each - first));
      }
    });
  });
}

// The factor and summand of every picture's channels that normalise, scale and shift them.
struct Affine {
  std::vector<float> scale, shift;
};

struct GroupNormShape {
  int64_t groups;
  double eps;
};

// `sums` holds, for each chunk, the channels' sums and sums of squares around `origins`.
Affine Solve(const Pixels& pixels, const std::vector<float>& sums,
             const std::vector<float>& origins, const float* offset, const float* weight,
             const float* bias, GroupNormShape shape) {
  Affine affine;
  affine.scale.resize(pixels.count * pixels.channels);
  affine.shift.resize(affine.scale.size());
  const int64_t width = pixels.channels / shape.groups;
  const double each = static_cast<double>(pixels.each);
  at::parallel_for(0, pixels.count * shape.groups, 1, [&](int64_t begin, int64_t end) {
    std::vector<double> mean(width), spread(width);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t picture = task / shape.groups;
      const int64_t first = task % shape.groups * width;
      const int64_t at = picture * pixels.channels + first;
      double group_mean = 0;
      for (int64_t c = 0; c < width; ++c) {
        double sum = 0, square = 0;
        for (int64_t chunk = 0; chunk < pixels.chunks; ++chunk) {
          const float* from =
              &sums[2 * ((picture * pixels.chunks + chunk) * pixels.channels) + first + c];
          sum += from[0];
          square += from[pixels.channels];
        }
        mean[c] = origins[at + c] + sum / each + (offset != nullptr ? offset[at + c] : 0.0f);
        spread[c] = square - sum * sum / each;
        group_mean += mean[c] / static_cast<double>(width);
      }
      double variance = 0;
      for (int64_t c = 0; c < width; ++c) {
        variance += spread[c] + each * (mean[c] - group_mean) * (mean[c] - group_mean);
      }
      variance = std::max(0.0, variance / (each * static_cast<double>(width)));
      const double inverse = 1 / std::sqrt(variance + shape.eps);
      for (int64_t c = 0; c < width; ++c) {
        const double scale = weight[first + c] * inverse;
        const double added = offset != nullptr ? offset[at + c] : 0.0f;
        affine.scale[at + c] = static_cast<float>(scale);
        affine.shift[at + c] = static_cast<float>(bias[first + c] + (added - group_mean) * scale);
      }
    }
  });
  return affine;
}

struct GroupNormCall {
  const float* offset;  // [n, channels], or null
  const float* weight;
  const float* bias;
  GroupNormShape shape;
  bool silu;
};

template <typename T>
void Normalise(const T* x, T* y, const Pixels& pixels, const GroupNormCall& call) {
  const int64_t channels = pixels.channels;
  // The first pixel of each picture: close enough to all its pixels.
  std::vector<float> origins(pixels.count * channels);
  for (int64_t picture = 0; picture < pixels.count; ++picture) {
    const std::vector<float> zero(channels, 0.0f);
    std::vector<float> unused(channels);
    AddMoments(x + picture * pixels.each * channels, 1, channels, zero.data(),
               &origins[picture * channels], unused.data());
  }
  std::vector<float> sums(2 * pixels.count * pixels.chunks * channels);
  ForEachChunk(pixels, [&](int64_t picture, int64_t chunk, int64_t first, int64_t count) {
    float* sum = &sums[2 * (picture * pixels.chunks + chunk) * channels];
    AddMoments(x + (picture * pixels.each + first) * channels, count, channels,
               &origins[picture * channels], sum, sum + channels);
  });
  const Affine affine =
      Solve(pixels, sums, origins, call.offset, call.weight, call.bias, call.shape);
  ForEachChunk(pixels, [&](int64_t picture, int64_t chunk, int64_t first, int64_t count) {
    const int64_t at = (picture * pixels.each + first) * channels;
    ScaleChannels(x + at, count, channels,
                  {.scale = &affine.scale[picture * channels],
                   .shift = &affine.shift[picture * channels],
                   .silu = call.silu},
                  y + at);
  });
}

}  // namespace

LayerNorm::LayerNorm(const WeightScope& weights, int64_t width, double eps) : eps_(eps) {
  const CheckpointOptions& options = weights.checkpoint().options();
  const at::ScalarType compute = onednn::ComputeType(options.dtype, options.device);
  weight_ = weights.TakeAs("weight", {width}, compute);
  bias_ = weights.TakeAs("bias", {width}, compute);
}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, weight_, bias_, eps_);
}

GroupNorm::GroupNorm(const WeightScope& weights, int64_t channels, int64_t groups, double eps)
    : groups_(groups), eps_(eps) {
  const CheckpointOptions& options = weights.checkpoint().options();
  const at::ScalarType type = options.device.is_cpu() ? at::kFloat : options.dtype;
  weight_ = weights.TakeAs("weight", {channels}, type).contiguous();
  bias_ = weights.TakeAs("bias", {channels}, type).contiguous();
  if (channels % groups != 0) {
    weights.Fail(absl::InvalidArgumentError(absl::StrCat(
        "config.json: norm_num_groups ", groups, " does not divide ", channels, " channels")));
  }
}

at::Tensor GroupNorm::Apply(const at::Tensor& x, const at::Tensor& offset, bool silu) const {
  const bool own =
      x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
  if (!own) {
    const at::Tensor moved = offset.defined() ? x + offset.unsqueeze(-1).unsqueeze(-1) : x;
    at::Tensor normed = at::group_norm(moved, groups_, weight_.to(x.scalar_type()),
                                       bias_.to(x.scalar_type()), eps_);
    return silu ? at::silu_(normed) : normed;
  }
  const at::Tensor pixels = x.contiguous(at::MemoryFormat::ChannelsLast);
  const at::Tensor out = at::empty_like(pixels);
  const at::Tensor offsets = offset.defined() ? offset.to(at::kFloat).contiguous() : offset;
  const GroupNormCall call = {
      .offset = offsets.defined() ? offsets.const_data_ptr<float>() : nullptr,
      .weight = weight_.const_data_ptr<float>(),
      .bias = bias_.const_data_ptr<float>(),
      .shape = {.groups = groups_, .eps = eps_},
      .silu = silu};
  if (x.scalar_type() == at::kFloat) {
    Normalise(pixels.const_data_ptr<float>(), out.data_ptr<float>(), Pixels(x), call);
  } else {
    Normalise(static_cast<const uint16_t*>(pixels.const_data_ptr()),
              static_cast<uint16_t*>(out.data_ptr()), Pixels(x), call);
  }
  return out;
}

}  // namespace hanmo
