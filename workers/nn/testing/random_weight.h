#ifndef HANMO_WORKERS_NN_TESTING_RANDOM_WEIGHT_H_
#define HANMO_WORKERS_NN_TESTING_RANDOM_WEIGHT_H_

#include <ATen/ATen.h>

#include <cmath>

namespace hanmo::testing {

// That keeps values of the size of its inputs.
inline at::Tensor RandomWeight(at::IntArrayRef shape, at::ScalarType type) {
  const double fan = static_cast<double>(at::empty(shape).numel()) / static_cast<double>(shape[0]);
  return (at::randn(shape) / std::sqrt(fan)).to(type);
}

}  // namespace hanmo::testing

#endif  // HANMO_WORKERS_NN_TESTING_RANDOM_WEIGHT_H_
