// What a denoising model knows of time.
#ifndef HANMO_WORKERS_NN_TIMESTEP_EMBEDDING_H_
#define HANMO_WORKERS_NN_TIMESTEP_EMBEDDING_H_

#include <ATen/ATen.h>

#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/linear.h"

namespace hanmo {

struct TimestepShape {
  int64_t in = 320;    // sinusoids
  int64_t out = 1280;  // width of the embedding
  bool flip_sin_to_cos = true;
  double freq_shift = 0;
};

// Sinusoids of the timestep (Transformer positions with base 10000) through a two-layer MLP.
// Immutable after construction; calls are thread-safe.
class TimestepEmbedding {
 public:
  TimestepEmbedding(const WeightScope& weights, const TimestepShape& shape);

  // timesteps [n] float32, any real values -> [n, out] in `dtype`.
  at::Tensor operator()(const at::Tensor& timesteps, at::ScalarType dtype) const;

 private:
  TimestepShape shape_;
  Linear linear1_, linear2_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_TIMESTEP_EMBEDDING_H_
