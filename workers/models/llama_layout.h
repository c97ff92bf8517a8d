// The layout that Llama has made common: tensor names (model.layers.N.self_attn.q_proj …) and
// config fields that Llama, Qwen3 and ERNIE-4.5 share.
#ifndef HANMO_WORKERS_MODELS_LLAMA_LAYOUT_H_
#define HANMO_WORKERS_MODELS_LLAMA_LAYOUT_H_

#include <cstdint>
#include <nlohmann/json.hpp>

#include "workers/checkpoint/checkpoint.h"
#include "workers/models/decoder_config.h"
#include "workers/models/decoder_family.h"
#include "workers/models/model_config.h"

namespace hanmo {

// What a family has where config.json is silent; transformers' defaults.
struct LlamaDefaults {
  int64_t vocab_size = 0;
  int64_t context_tokens = 0;
  int64_t layers = 0;
  int64_t width = 0;
  int64_t inner = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // 0: as many as heads
  int64_t head_dim = 0;  // 0: width / heads
  double norm_epsilon = 1e-6;
  double theta = 10000;
  bool tied_head = false;
};

// rope_parameters (or rope_scaling) becomes keys of the config itself, "rope_parameters.rope_type",
// so that errors name them in full. What it returns must outlive the ModelConfig over it.
nlohmann::json WithFlatRope(const nlohmann::json& json);

// RMS norms, rotary positions, a gated MLP and no biases. Problems go to fields.status(): rope
// types other than "default" and "linear" are refused.
DecoderConfig ReadLlamaConfig(ModelConfig& fields, const LlamaDefaults& defaults);

DecoderLayerWeights TakeLlamaLayer(const WeightScope& weights, const DecoderConfig& config,
                                   int64_t layer);
DecoderOuterWeights TakeLlamaOuter(const WeightScope& weights, const DecoderConfig& config);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_LLAMA_LAYOUT_H_
