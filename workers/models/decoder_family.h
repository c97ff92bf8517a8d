// What tells one family of decoders from another: how it reads config.json and what its tensors are
// called. One small file per family; decoder.cc has the list.
#ifndef HANMO_WORKERS_MODELS_DECODER_FAMILY_H_
#define HANMO_WORKERS_MODELS_DECODER_FAMILY_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/models/decoder_config.h"

namespace hanmo {

struct NormWeights {
  at::Tensor weight;
  at::Tensor bias;  // of a layer norm, undefined for an RMS norm
};

// y = x · weightᵀ + bias.
struct LinearWeights {
  at::Tensor weight;  // [out, in], either way around in memory
  at::Tensor bias;    // [out]; undefined: none
};

struct DecoderLayerWeights {
  NormWeights attention_norm, mlp_norm;  // [width]
  LinearWeights qkv;                     // width -> qkv_columns
  at::Tensor query_norm, key_norm;       // [head_dim], with head_norms
  LinearWeights attention_out;           // query_columns -> width
  LinearWeights mlp_in;                  // width -> inner; gated: gate and up, 2 inner
  LinearWeights mlp_out;                 // inner -> width
};

struct DecoderOuterWeights {
  at::Tensor tokens;     // [vocab_size, width]
  at::Tensor positions;  // [context_tokens, width], with learned_positions
  NormWeights norm;      // before the head
  at::Tensor head;       // [vocab_size, width]; `tokens` itself when tied
};

struct DecoderFamily {
  const char* model_type;
  // Of tensor names, which may lack it.
  const char* prefix;
  // INVALID_ARGUMENT names the field and what it may be. Absent fields have transformers' defaults.
  absl::StatusOr<DecoderConfig> (*parse)(const nlohmann::json& json);
  // Errors go to weights.status(). Layer by layer, so that an implementation which repacks weights
  // holds one layer twice, not all.
  DecoderLayerWeights (*take_layer)(const WeightScope& weights, const DecoderConfig& config,
                                    int64_t layer);
  DecoderOuterWeights (*take_outer)(const WeightScope& weights, const DecoderConfig& config);
};

extern const DecoderFamily kGpt2Family;
extern const DecoderFamily kErnie45Family;
extern const DecoderFamily kLlamaFamily;
extern const DecoderFamily kQwen3Family;

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_DECODER_FAMILY_H_
