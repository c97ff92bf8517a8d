// The fields of a GPT-2 config.json that change its computation.
#ifndef HANMO_WORKERS_MODELS_GPT2_CONFIG_H_
#define HANMO_WORKERS_MODELS_GPT2_CONFIG_H_

#include <cstdint>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"

namespace hanmo {

enum class Gpt2Activation {
  kGeluTanh,  // "gelu_new", "gelu_fast", "gelu_pytorch_tanh": x/2 (1 + tanh(√(2/π) (x + 0.044715
              // x³)))
  kGeluErf,   // "gelu": x/2 (1 + erf(x/√2))
  kRelu,      // "relu"
  kSilu,      // "silu", "swish"
};

// Absent fields take transformers' defaults for GPT2Config.
struct Gpt2Config {
  int64_t vocab_size = 50257;
  int64_t n_positions = 1024;
  int64_t n_embd = 768;
  int64_t n_layer = 12;
  int64_t n_head = 12;
  int64_t n_inner = 3072;
  Gpt2Activation activation = Gpt2Activation::kGeluTanh;
  double layer_norm_epsilon = 1e-5;
  bool scale_attn_weights = true;
  bool scale_attn_by_inverse_layer_idx = false;
  bool tie_word_embeddings = true;

  int64_t head_dim() const { return n_embd / n_head; }
  // What queries are multiplied with in `layer`, from 0.
  double AttentionScale(int64_t layer) const;
};

// INVALID_ARGUMENT names the field and what it may be.
absl::StatusOr<Gpt2Config> ParseGpt2Config(const nlohmann::json& json);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_GPT2_CONFIG_H_
