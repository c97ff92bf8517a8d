// Classifier-free guidance, in the order of operations of diffusers.
#pragma once

#include <ATen/core/Tensor.h>

namespace hanmo {

// Whether a picture needs the unconditional prediction. `model_takes_guidance`: the UNet has
// time_cond_proj_dim (distilled latent consistency models) and is told the scale instead.
inline bool UsesGuidance(double guidance_scale, bool model_takes_guidance = false) {
  return guidance_scale > 1 && !model_takes_guidance;
}

// unconditional + scale · (conditional − unconditional); both of one shape and dtype.
at::Tensor Guide(const at::Tensor& unconditional, const at::Tensor& conditional,
                 double guidance_scale);

}  // namespace hanmo
