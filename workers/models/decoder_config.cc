#include "workers/models/decoder_config.h"

#include <ATen/ATen.h>

#include <utility>

namespace hanmo {

TextActivation ReadActivation(ModelConfig& fields, absl::string_view key,
                              absl::string_view absent) {
  constexpr std::pair<const char*, TextActivation> kNames[] = {
      {"gelu_new", TextActivation::kGeluTanh}, {"gelu_fast", TextActivation::kGeluTanh},
      {"gelu", TextActivation::kGeluErf},      {"gelu_pytorch_tanh", TextActivation::kGeluTanh},
      {"relu", TextActivation::kRelu},         {"silu", TextActivation::kSilu},
      {"swish", TextActivation::kSilu},
  };
  const std::string name = fields.String(key, absent);
  for (const auto& [known, activation] : kNames) {
    if (name == known) return activation;
  }
  fields.Fail(key, "must be gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, silu or swish");
  return TextActivation::kNone;
}

RopeAngles AnglesAt(const at::Tensor& positions, const RopeConfig& rope, int64_t head_dim) {
  const auto options = at::device(positions.device()).dtype(at::kFloat);
  const at::Tensor exponents = at::arange(0, head_dim, 2, options) / head_dim;
  at::Tensor frequencies = at::reciprocal(at::pow(rope.theta, exponents));
  if (rope.factor != 1) frequencies = frequencies / rope.factor;
  const at::Tensor angles = positions.to(at::kFloat).unsqueeze(1) * frequencies;
  return {angles.cos(), angles.sin()};
}

}  // namespace hanmo
