// The tensors of a GPT-2 checkpoint under their published names, for the implementations of Gpt2.
#ifndef HANMO_WORKERS_MODELS_GPT2_WEIGHTS_H_
#define HANMO_WORKERS_MODELS_GPT2_WEIGHTS_H_

#include <ATen/ATen.h>

#include <cstdint>

#include "workers/checkpoint/checkpoint.h"
#include "workers/models/gpt2_config.h"

namespace hanmo {

struct Gpt2Norm {
  at::Tensor weight, bias;  // [n_embd]
};

// transformers' Conv1D: y = x · weight + bias.
struct Gpt2Projection {
  at::Tensor weight;  // [in, out]
  at::Tensor bias;    // [out]
};

struct Gpt2LayerWeights {
  Gpt2Norm ln_1, ln_2;
  Gpt2Projection attention_in;   // n_embd -> 3 n_embd: query, key, value
  Gpt2Projection attention_out;  // n_embd -> n_embd
  Gpt2Projection mlp_in;         // n_embd -> n_inner
  Gpt2Projection mlp_out;        // n_inner -> n_embd
};

struct Gpt2OuterWeights {
  at::Tensor tokens;     // wte, [vocab_size, n_embd]
  at::Tensor positions;  // wpe, [n_positions, n_embd]
  Gpt2Norm ln_f;
  at::Tensor head;  // [vocab_size, n_embd]; `tokens` itself when tied
};

// Errors go to weights.status(). Layer by layer, so that an implementation which repacks weights
// holds one layer twice, not all.
Gpt2LayerWeights TakeGpt2Layer(const WeightScope& weights, const Gpt2Config& config, int64_t layer);
Gpt2OuterWeights TakeGpt2Outer(const WeightScope& weights, const Gpt2Config& config);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_GPT2_WEIGHTS_H_
