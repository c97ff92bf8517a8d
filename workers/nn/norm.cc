#include "workers/nn/norm.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace hanmo {

LayerNorm::LayerNorm(const WeightScope& weights, int64_t width, double eps)
    : weight_(weights.Take("weight", {width})), bias_(weights.Take("bias", {width})), eps_(eps) {}

at::Tensor LayerNorm::operator()(const at::Tensor& x) const {
  return at::layer_norm(x, {x.size(-1)}, weight_, bias_, eps_);
}

GroupNorm::GroupNorm(const WeightScope& weights, int64_t channels, int64_t groups, double eps)
    : weight_(weights.Take("weight", {channels})),
      bias_(weights.Take("bias", {channels})),
      groups_(groups),
      eps_(eps) {
  if (channels % groups != 0) {
    weights.Fail(absl::InvalidArgumentError(absl::StrCat("norm_num_groups ", groups,
                                                         " does not divide ", channels,
                                                         " channels")));
  }
}

at::Tensor GroupNorm::operator()(const at::Tensor& x) const {
  return at::group_norm(x, groups_, weight_, bias_, eps_);
}

at::Tensor GroupNorm::Silu(const at::Tensor& x) const {
  at::Tensor normed = at::group_norm(x, groups_, weight_, bias_, eps_);
  return at::silu_(normed);
}

}  // namespace hanmo
