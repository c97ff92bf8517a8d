// A decoder-only network in plain numbers: what the implementations of decoder.h need to know and
// what each family's file reads from its config.json.
#ifndef HANMO_WORKERS_MODELS_DECODER_CONFIG_H_
#define HANMO_WORKERS_MODELS_DECODER_CONFIG_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "workers/kernels/text_kernels.h"
#include "workers/models/model_config.h"
#include "workers/models/text_model.h"

namespace hanmo {

enum class NormKind { kLayerNorm, kRmsNorm };

// Rotary positions: pair i of each head turns by position · theta^(-2i / head_dim) / factor.
struct RopeConfig {
  RopeCall::Pairs pairs = RopeCall::Pairs::kHalves;
  double theta = 10000;
  double factor = 1;
};

// x + attention(norm(x)), then x + mlp(norm(x)), layer by layer.
struct DecoderConfig {
  TextModelShape shape;
  int64_t layers = 0;
  int64_t width = 0;  // of the residual stream
  int64_t inner = 0;  // of the MLP
  int64_t heads = 0;
  int64_t kv_heads = 0;  // divides heads
  int64_t head_dim = 0;  // even with rope
  NormKind norm = NormKind::kRmsNorm;
  double norm_epsilon = 1e-6;
  bool head_norms = false;  // queries and keys are RMS-normed head by head, before rope
  bool rotates = false;     // by `rope`
  RopeConfig rope;
  bool learned_positions = false;  // added to the embeddings
  TextActivation activation = TextActivation::kSilu;
  bool gated = false;  // MLP: out(activation(gate(x)) · up(x)) instead of out(activation(in(x)))
  bool qkv_bias = false;
  bool attention_out_bias = false;
  bool mlp_bias = false;
  bool tied_head = false;       // the head is the token embedding
  double attention_scale = 1;   // what scores are multiplied with,
  bool scale_by_layer = false;  // divided by the layer's number from 1

  int64_t query_columns() const { return heads * head_dim; }
  int64_t kv_columns() const { return kv_heads * head_dim; }
  // Queries, keys and values side by side.
  int64_t qkv_columns() const { return query_columns() + 2 * kv_columns(); }
  double ScaleOfLayer(int64_t layer) const {
    return scale_by_layer ? attention_scale / static_cast<double>(layer + 1) : attention_scale;
  }
};

// What text models name their activations: "gelu_new", "gelu_fast" and "gelu_pytorch_tanh" are one,
// "gelu", "relu", "silu" and "swish". Anything else is a problem of `key`.
TextActivation ReadActivation(ModelConfig& fields, absl::string_view key, absl::string_view absent);

// cos and sin of every pair's angle at the given positions, float32 [positions, head_dim / 2], as
// transformers computes them.
struct RopeAngles {
  at::Tensor cos, sin;
};
RopeAngles AnglesAt(const at::Tensor& positions, const RopeConfig& rope, int64_t head_dim);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_DECODER_CONFIG_H_
