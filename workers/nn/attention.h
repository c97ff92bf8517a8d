// Multi-head attention.
#ifndef HANMO_WORKERS_NN_ATTENTION_H_
#define HANMO_WORKERS_NN_ATTENTION_H_

#include <ATen/ATen.h>

#include <string>

#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/linear.h"

namespace hanmo {

// softmax(q k^T / sqrt(width / heads)) v, head by head. q [n, lq, width], k and v [n, lk, width],
// any strides with the last dimension dense -> [n, lq, width]. With `causal`, query i sees keys
// 0..i.
at::Tensor AttendHeads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads,
                       bool causal = false);

// How a checkpoint names the four linear layers of an attention, relative to its scope.
struct AttentionNames {
  std::string q = "to_q";
  std::string k = "to_k";
  std::string v = "to_v";
  std::string out = "to_out.0";
};

struct AttentionShape {
  int64_t width = 0;
  int64_t heads = 1;
  int64_t context_width = 0;  // 0: attends to itself
  bool qkv_bias = false;
  bool causal = false;
};

// The projections around AttendHeads. Immutable after construction; calls are thread-safe.
class Attention {
 public:
  Attention() = default;
  Attention(const WeightScope& weights, const AttentionShape& shape,
            const AttentionNames& names = {});

  // x [n, l, width], context [n, l', context_width] (ignored by self attention), residual
  // [n, l, width] -> residual + attention.
  at::Tensor Add(const at::Tensor& x, const at::Tensor& context, const at::Tensor& residual) const;

 private:
  AttentionShape shape_;
  Linear q_;      // cross attention; self attention keeps q, k and v in one
  Linear fused_;  // q, k, v of self attention; k, v of cross attention
  Linear out_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_NN_ATTENTION_H_
