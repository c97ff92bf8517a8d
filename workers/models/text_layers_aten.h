// What text models on ATen operators share.
#ifndef HANMO_WORKERS_MODELS_TEXT_LAYERS_ATEN_H_
#define HANMO_WORKERS_MODELS_TEXT_LAYERS_ATEN_H_

#include <ATen/ATen.h>

#include "workers/kernels/text_kernels.h"
#include "workers/models/decoder_family.h"

namespace hanmo {

// x [rows, in] -> [rows, out]
at::Tensor Project(const at::Tensor& x, const LinearWeights& linear);

at::Tensor ApplyActivation(const at::Tensor& x, TextActivation activation);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_TEXT_LAYERS_ATEN_H_
