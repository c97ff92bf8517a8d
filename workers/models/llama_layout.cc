#include "workers/models/llama_layout.h"

#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

constexpr char kRope[] = "rope_parameters";

std::string RopeKey(absl::string_view key) { return absl::StrCat(kRope, ".", key); }

RopeConfig ReadRope(ModelConfig& fields, double default_theta) {
  RopeConfig rope;
  // Old files have rope_theta beside rope_scaling, new ones inside of rope_parameters.
  const double outer = fields.Real("rope_theta", default_theta, {1, 1e12});
  rope.theta = fields.Real(RopeKey("rope_theta"), outer, {1, 1e12});
  const std::string type =
      fields.String(RopeKey("rope_type"), fields.String(RopeKey("type"), "default"));
  if (type == "linear") {
    rope.factor = fields.Real(RopeKey("factor"), 1, {1, 1e6});
  } else if (type != "default") {
    fields.Fail(RopeKey("rope_type"), "must be default or linear; others are not supported");
  }
  fields.Require("partial_rotary_factor", 1.0);
  fields.Require(RopeKey("partial_rotary_factor"), 1.0);
  return rope;
}

LinearWeights TakeLinear(const WeightScope& weights, int64_t in, int64_t out, bool bias) {
  return {weights.Take("weight", {out, in}), bias ? weights.Take("bias", {out}) : at::Tensor()};
}

// One layer whose outputs are those of `parts`, side by side.
LinearWeights Beside(const std::vector<LinearWeights>& parts) {
  std::vector<at::Tensor> weights, biases;
  for (const LinearWeights& part : parts) {
    weights.push_back(part.weight);
    if (part.bias.defined()) biases.push_back(part.bias);
  }
  return {at::cat(weights), biases.empty() ? at::Tensor() : at::cat(biases)};
}

}  // namespace

nlohmann::json WithFlatRope(const nlohmann::json& json) {
  nlohmann::json flat = json;
  for (const char* key : {kRope, "rope_scaling"}) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_object()) continue;
    for (const auto& [name, value] : found->items()) flat[RopeKey(name)] = value;
  }
  return flat;
}

DecoderConfig ReadLlamaConfig(ModelConfig& fields, const LlamaDefaults& defaults) {
  DecoderConfig config;
  config.shape.vocab_size = fields.Integer("vocab_size", defaults.vocab_size, {1, 1e6});
  config.shape.context_tokens =
      fields.Integer("max_position_embeddings", defaults.context_tokens, {1, 1 << 24});
  config.layers = fields.Integer("num_hidden_layers", defaults.layers, {1, 1024});
  config.width = fields.Integer("hidden_size", defaults.width, {1, 65536});
  config.inner = fields.Integer("intermediate_size", defaults.inner, {1, 262144});
  config.heads = fields.Integer("num_attention_heads", defaults.heads, {1, 1024});
  // An explicit null stands for the plain case, an absent key for the family's own.
  const bool all_heads = defaults.kv_heads == 0 || fields.IsNull("num_key_value_heads");
  config.kv_heads = fields.Integer("num_key_value_heads",
                                   all_heads ? config.heads : defaults.kv_heads, {1, 1024});
  const bool share = defaults.head_dim == 0 || fields.IsNull("head_dim");
  config.head_dim = fields.Integer(
      "head_dim", share ? config.width / config.heads : defaults.head_dim, {2, 1024});
  if (config.heads % config.kv_heads != 0) {
    fields.Fail("num_key_value_heads", "must divide num_attention_heads");
  }
  if (config.head_dim % 2 != 0) fields.Fail("head_dim", "must be even");
  config.norm = NormKind::kRmsNorm;
  config.norm_epsilon = fields.Real("rms_norm_eps", defaults.norm_epsilon, {0, 1});
  config.rotates = true;
  config.rope = ReadRope(fields, defaults.theta);
  config.activation = ReadActivation(fields, "hidden_act", "silu");
  config.gated = true;
  config.tied_head = fields.Boolean("tie_word_embeddings", defaults.tied_head);
  config.attention_scale = 1 / std::sqrt(static_cast<double>(config.head_dim));
  return config;
}

DecoderLayerWeights TakeLlamaLayer(const WeightScope& weights, const DecoderConfig& config,
                                   int64_t layer) {
  const WeightScope scope = weights.Sub("layers", layer);
  const WeightScope attention = scope.Sub("self_attn"), mlp = scope.Sub("mlp");
  const int64_t width = config.width, queries = config.query_columns();
  const bool bias = config.qkv_bias;
  DecoderLayerWeights taken;
  taken.attention_norm.weight = scope.Take("input_layernorm.weight", {width});
  taken.mlp_norm.weight = scope.Take("post_attention_layernorm.weight", {width});
  taken.qkv = Beside({TakeLinear(attention.Sub("q_proj"), width, queries, bias),
                      TakeLinear(attention.Sub("k_proj"), width, config.kv_columns(), bias),
                      TakeLinear(attention.Sub("v_proj"), width, config.kv_columns(), bias)});
  if (config.head_norms) {
    taken.query_norm = attention.Take("q_norm.weight", {config.head_dim});
    taken.key_norm = attention.Take("k_norm.weight", {config.head_dim});
  }
  taken.attention_out =
      TakeLinear(attention.Sub("o_proj"), queries, width, config.attention_out_bias);
  taken.mlp_in = Beside({TakeLinear(mlp.Sub("gate_proj"), width, config.inner, config.mlp_bias),
                         TakeLinear(mlp.Sub("up_proj"), width, config.inner, config.mlp_bias)});
  taken.mlp_out = TakeLinear(mlp.Sub("down_proj"), config.inner, width, config.mlp_bias);
  return taken;
}

DecoderOuterWeights TakeLlamaOuter(const WeightScope& weights, const DecoderConfig& config) {
  const int64_t vocabulary = config.shape.vocab_size;
  DecoderOuterWeights outer;
  outer.tokens = weights.Take("embed_tokens.weight", {vocabulary, config.width});
  outer.norm.weight = weights.Take("norm.weight", {config.width});
  outer.head =
      config.tied_head ? outer.tokens : weights.Take("lm_head.weight", {vocabulary, config.width});
  return outer;
}

}  // namespace hanmo
