// Qwen3, dense: queries and keys are normed head by head, and a head may be wider than its share of
// the residual stream.
#include "workers/models/llama_layout.h"

namespace hanmo {
namespace {

absl::StatusOr<DecoderConfig> ParseQwen3(const nlohmann::json& json) {
  const nlohmann::json flat = WithFlatRope(json);
  ModelConfig fields(flat, "qwen3");
  fields.Require("model_type", "qwen3");
  fields.Require("use_sliding_window", false);
  DecoderConfig config = ReadLlamaConfig(fields, {.vocab_size = 151936,
                                                  .context_tokens = 32768,
                                                  .layers = 32,
                                                  .width = 4096,
                                                  .inner = 22016,
                                                  .heads = 32,
                                                  .kv_heads = 32,
                                                  .head_dim = 128});
  config.shape.architecture = "Qwen3ForCausalLM";
  config.head_norms = true;
  config.qkv_bias = config.attention_out_bias = fields.Boolean("attention_bias", false);
  if (!fields.status().ok()) return fields.status();
  return config;
}

}  // namespace

const DecoderFamily kQwen3Family = {"qwen3", "model.", &ParseQwen3, &TakeLlamaLayer,
                                    &TakeLlamaOuter};

}  // namespace hanmo
