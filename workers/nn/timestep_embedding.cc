#include "workers/nn/timestep_embedding.h"

#include <cmath>

namespace hanmo {

TimestepEmbedding::TimestepEmbedding(const WeightScope& weights, const TimestepShape& shape)
    : shape_(shape),
      linear1_(weights.Sub("linear_1"), shape.in, shape.out),
      linear2_(weights.Sub("linear_2"), shape.out, shape.out) {}

at::Tensor TimestepEmbedding::operator()(const at::Tensor& timesteps, at::ScalarType dtype) const {
  const int64_t half = shape_.in / 2;
  const at::Tensor exponent = at::arange(half, timesteps.options().dtype(at::kFloat)) *
                              (-std::log(10000.0)) / (half - shape_.freq_shift);
  const at::Tensor angle = timesteps.unsqueeze(1) * exponent.exp();
  at::Tensor waves = shape_.flip_sin_to_cos ? at::cat({angle.cos(), angle.sin()}, 1)
                                            : at::cat({angle.sin(), angle.cos()}, 1);
  if (shape_.in % 2 == 1) waves = at::constant_pad_nd(waves, {0, 1});
  return linear2_(linear1_(waves.to(dtype), Activation::kSilu));
}

}  // namespace hanmo
