// What the tests of blocks share: weights and types, and that no row depends on its company.
#ifndef HANMO_WORKERS_NN_TESTING_BLOCKS_H_
#define HANMO_WORKERS_NN_TESTING_BLOCKS_H_

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>

namespace hanmo::testing {

// What weights are stored in and computed with.
struct Types {
  at::ScalarType storage;
  at::ScalarType compute;
  double tolerance;
};
inline constexpr Types kTypes[] = {{at::kFloat, at::kFloat, 1e-5},
                                   {at::kBFloat16, at::kFloat, 1e-5},
                                   {at::kBFloat16, at::kBFloat16, 0.02}};

// That keeps values of the size of its inputs.
inline at::Tensor RandomWeight(at::IntArrayRef shape, at::ScalarType type) {
  const double fan = static_cast<double>(at::empty(shape).numel()) / static_cast<double>(shape[0]);
  return (at::randn(shape) / std::sqrt(fan)).to(type);
}

// f(first n rows) must be the first n rows of f(x).
template <typename F>
void ExpectRowsIndependent(const at::Tensor& x, const F& f, const std::string& what) {
  const at::Tensor all = f(x);
  for (const int64_t n : {1, 2, 3, 4}) {
    for (const int64_t first : {int64_t{0}, x.size(0) - n}) {
      const at::Tensor some = f(x.narrow(0, first, n).clone());
      EXPECT_TRUE(some.equal(all.narrow(0, first, n))) << what << ", " << n << " rows";
    }
  }
}

}  // namespace hanmo::testing

#endif  // HANMO_WORKERS_NN_TESTING_BLOCKS_H_
