// libtorch's own square root, logarithm and exponentials of one float32. On x86-64 they come from a
// vector library whose last bit differs from libm's now and then, and schedules are to be equal to
// diffusers', which computes them with torch.
#pragma once

#include <ATen/ATen.h>

namespace hanmo {

inline float TorchSqrt(float x) { return at::sqrt(at::scalar_tensor(x, at::kFloat)).item<float>(); }
inline float TorchLog(float x) { return at::log(at::scalar_tensor(x, at::kFloat)).item<float>(); }
inline float TorchExp(float x) { return at::exp(at::scalar_tensor(x, at::kFloat)).item<float>(); }
inline float TorchExpm1(float x) {
  return at::expm1(at::scalar_tensor(x, at::kFloat)).item<float>();
}

}  // namespace hanmo
