#include "workers/models/gpt2_weights.h"

namespace hanmo {
namespace {

Gpt2Norm TakeNorm(const WeightScope& weights, int64_t width) {
  return {weights.Take("weight", {width}), weights.Take("bias", {width})};
}

Gpt2Projection TakeProjection(const WeightScope& weights, int64_t in, int64_t out) {
  return {weights.Take("weight", {in, out}), weights.Take("bias", {out})};
}

}  // namespace

Gpt2LayerWeights TakeGpt2Layer(const WeightScope& weights, const Gpt2Config& config,
                               int64_t layer) {
  const WeightScope h = weights.Sub("h", layer);
  const int64_t width = config.n_embd;
  return {.ln_1 = TakeNorm(h.Sub("ln_1"), width),
          .ln_2 = TakeNorm(h.Sub("ln_2"), width),
          .attention_in = TakeProjection(h.Sub("attn").Sub("c_attn"), width, 3 * width),
          .attention_out = TakeProjection(h.Sub("attn").Sub("c_proj"), width, width),
          .mlp_in = TakeProjection(h.Sub("mlp").Sub("c_fc"), width, config.n_inner),
          .mlp_out = TakeProjection(h.Sub("mlp").Sub("c_proj"), config.n_inner, width)};
}

Gpt2OuterWeights TakeGpt2Outer(const WeightScope& weights, const Gpt2Config& config) {
  Gpt2OuterWeights outer;
  outer.tokens = weights.Take("wte.weight", {config.vocab_size, config.n_embd});
  outer.positions = weights.Take("wpe.weight", {config.n_positions, config.n_embd});
  outer.ln_f = TakeNorm(weights.Sub("ln_f"), config.n_embd);
  outer.head = config.tie_word_embeddings
                   ? outer.tokens
                   : weights.Take("lm_head.weight", {config.vocab_size, config.n_embd});
  return outer;
}

}  // namespace hanmo
