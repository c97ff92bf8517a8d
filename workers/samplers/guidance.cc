#include "workers/samplers/guidance.h"

#include <ATen/ATen.h>

namespace hanmo {

at::Tensor Guide(const at::Tensor& unconditional, const at::Tensor& conditional,
                 double guidance_scale) {
  return unconditional + guidance_scale * (conditional - unconditional);
}

}  // namespace hanmo
