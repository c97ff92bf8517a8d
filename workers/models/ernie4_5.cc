// ERNIE 4.5, dense: rotary positions turn neighbouring elements.
#include "workers/models/llama_layout.h"

namespace hanmo {
namespace {

absl::StatusOr<DecoderConfig> ParseErnie45(const nlohmann::json& json) {
  const nlohmann::json flat = WithFlatRope(json);
  ModelConfig fields(flat, "ernie4_5");
  fields.Require("model_type", "ernie4_5");
  DecoderConfig config = ReadLlamaConfig(fields, {.vocab_size = 103424,
                                                  .context_tokens = 131072,
                                                  .layers = 18,
                                                  .width = 1024,
                                                  .inner = 3072,
                                                  .heads = 16,
                                                  .kv_heads = 2,
                                                  .head_dim = 128,
                                                  .norm_epsilon = 1e-5,
                                                  .theta = 500000,
                                                  .tied_head = true});
  config.shape.architecture = "Ernie4_5ForCausalLM";
  config.rope.pairs = RopeCall::Pairs::kNeighbours;
  config.qkv_bias = config.attention_out_bias = config.mlp_bias = fields.Boolean("use_bias", false);
  if (!fields.status().ok()) return fields.status();
  return config;
}

}  // namespace

const DecoderFamily kErnie45Family = {"ernie4_5", "model.", &ParseErnie45, &TakeLlamaLayer,
                                      &TakeLlamaOuter};

}  // namespace hanmo
