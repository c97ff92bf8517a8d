#include "workers/models/gpt2_config.h"

#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "workers/models/model_config.h"

namespace hanmo {
namespace {

std::optional<Gpt2Activation> ActivationNamed(const std::string& name) {
  constexpr std::pair<const char*, Gpt2Activation> kNames[] = {
      {"gelu_new", Gpt2Activation::kGeluTanh},
      {"gelu_fast", Gpt2Activation::kGeluTanh},
      {"gelu_pytorch_tanh", Gpt2Activation::kGeluTanh},
      {"gelu", Gpt2Activation::kGeluErf},
      {"relu", Gpt2Activation::kRelu},
      {"silu", Gpt2Activation::kSilu},
      {"swish", Gpt2Activation::kSilu},
  };
  for (const auto& [known, activation] : kNames) {
    if (name == known) return activation;
  }
  return std::nullopt;
}

}  // namespace

double Gpt2Config::AttentionScale(int64_t layer) const {
  double scale = 1;
  if (scale_attn_weights) scale /= std::sqrt(static_cast<double>(head_dim()));
  if (scale_attn_by_inverse_layer_idx) scale /= static_cast<double>(layer + 1);
  return scale;
}

absl::StatusOr<Gpt2Config> ParseGpt2Config(const nlohmann::json& json) {
  ModelConfig fields(json, "gpt2");
  fields.Require("model_type", "gpt2");
  fields.Require("add_cross_attention", false);
  Gpt2Config config;
  config.vocab_size = fields.Integer("vocab_size", config.vocab_size, {1, 1e6});
  config.n_positions = fields.Integer("n_positions", config.n_positions, {1, 1e6});
  config.n_embd = fields.Integer("n_embd", config.n_embd, {1, 65536});
  config.n_layer = fields.Integer("n_layer", config.n_layer, {1, 1024});
  config.n_head = fields.Integer("n_head", config.n_head, {1, 1024});
  config.n_inner = fields.Integer("n_inner", 4 * config.n_embd, {1, 262144});
  config.layer_norm_epsilon = fields.Real("layer_norm_epsilon", config.layer_norm_epsilon, {0, 1});
  config.scale_attn_weights = fields.Boolean("scale_attn_weights", config.scale_attn_weights);
  config.scale_attn_by_inverse_layer_idx =
      fields.Boolean("scale_attn_by_inverse_layer_idx", config.scale_attn_by_inverse_layer_idx);
  config.tie_word_embeddings = fields.Boolean("tie_word_embeddings", config.tie_word_embeddings);
  const std::string activation = fields.String("activation_function", "gelu_new");
  if (const auto known = ActivationNamed(activation)) {
    config.activation = *known;
  } else {
    fields.Fail("activation_function",
                "must be gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, silu or swish");
  }
  if (config.n_embd % config.n_head != 0) fields.Fail("n_head", "must divide n_embd");
  if (!fields.status().ok()) return fields.status();
  return config;
}

}  // namespace hanmo
