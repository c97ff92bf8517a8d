// The GPT-2 family: GPT-2, Wenzhong.
#include <cmath>

#include "workers/models/decoder_family.h"

namespace hanmo {
namespace {

absl::StatusOr<DecoderConfig> ParseGpt2(const nlohmann::json& json) {
  ModelConfig fields(json, "gpt2");
  fields.Require("model_type", "gpt2");
  fields.Require("add_cross_attention", false);
  DecoderConfig config;
  config.shape.architecture = "GPT2LMHeadModel";
  config.shape.vocab_size = fields.Integer("vocab_size", 50257, {1, 1e6});
  config.shape.context_tokens = fields.Integer("n_positions", 1024, {1, 1e6});
  config.width = fields.Integer("n_embd", 768, {1, 65536});
  config.layers = fields.Integer("n_layer", 12, {1, 1024});
  config.heads = config.kv_heads = fields.Integer("n_head", 12, {1, 1024});
  config.inner = fields.Integer("n_inner", 4 * config.width, {1, 262144});
  config.norm = NormKind::kLayerNorm;
  config.norm_epsilon = fields.Real("layer_norm_epsilon", 1e-5, {0, 1});
  config.learned_positions = true;
  config.activation = ReadActivation(fields, "activation_function", "gelu_new");
  config.qkv_bias = config.attention_out_bias = config.mlp_bias = true;
  config.tied_head = fields.Boolean("tie_word_embeddings", true);
  config.scale_by_layer = fields.Boolean("scale_attn_by_inverse_layer_idx", false);
  if (config.width % config.heads != 0) fields.Fail("n_head", "must divide n_embd");
  config.head_dim = config.width / config.heads;
  if (fields.Boolean("scale_attn_weights", true)) {
    config.attention_scale = 1 / std::sqrt(static_cast<double>(config.head_dim));
  }
  if (!fields.status().ok()) return fields.status();
  return config;
}

NormWeights TakeNorm(const WeightScope& weights, int64_t width) {
  return {weights.Take("weight", {width}), weights.Take("bias", {width})};
}

// transformers' Conv1D stores [in, out].
LinearWeights TakeConv1d(const WeightScope& weights, int64_t in, int64_t out) {
  return {weights.Take("weight", {in, out}).t(), weights.Take("bias", {out})};
}

DecoderLayerWeights TakeLayer(const WeightScope& weights, const DecoderConfig& config,
                              int64_t layer) {
  const WeightScope h = weights.Sub("h", layer);
  const int64_t width = config.width;
  DecoderLayerWeights taken;
  taken.attention_norm = TakeNorm(h.Sub("ln_1"), width);
  taken.mlp_norm = TakeNorm(h.Sub("ln_2"), width);
  taken.qkv = TakeConv1d(h.Sub("attn").Sub("c_attn"), width, config.qkv_columns());
  taken.attention_out = TakeConv1d(h.Sub("attn").Sub("c_proj"), width, width);
  taken.mlp_in = TakeConv1d(h.Sub("mlp").Sub("c_fc"), width, config.inner);
  taken.mlp_out = TakeConv1d(h.Sub("mlp").Sub("c_proj"), config.inner, width);
  return taken;
}

DecoderOuterWeights TakeOuter(const WeightScope& weights, const DecoderConfig& config) {
  const int64_t vocabulary = config.shape.vocab_size;
  DecoderOuterWeights outer;
  outer.tokens = weights.Take("wte.weight", {vocabulary, config.width});
  outer.positions = weights.Take("wpe.weight", {config.shape.context_tokens, config.width});
  outer.norm = TakeNorm(weights.Sub("ln_f"), config.width);
  outer.head =
      config.tied_head ? outer.tokens : weights.Take("lm_head.weight", {vocabulary, config.width});
  return outer;
}

}  // namespace

const DecoderFamily kGpt2Family = {"gpt2", "transformer.", &ParseGpt2, &TakeLayer, &TakeOuter};

}  // namespace hanmo
