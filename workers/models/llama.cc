// Llama and what shares its layout under that name.
#include "workers/models/llama_layout.h"

namespace hanmo {
namespace {

absl::StatusOr<DecoderConfig> ParseLlama(const nlohmann::json& json) {
  const nlohmann::json flat = WithFlatRope(json);
  ModelConfig fields(flat, "llama");
  fields.Require("model_type", "llama");
  DecoderConfig config = ReadLlamaConfig(fields, {.vocab_size = 32000,
                                                  .context_tokens = 2048,
                                                  .layers = 32,
                                                  .width = 4096,
                                                  .inner = 11008,
                                                  .heads = 32});
  config.shape.architecture = "LlamaForCausalLM";
  config.qkv_bias = config.attention_out_bias = fields.Boolean("attention_bias", false);
  config.mlp_bias = fields.Boolean("mlp_bias", false);
  if (!fields.status().ok()) return fields.status();
  return config;
}

}  // namespace

const DecoderFamily kLlamaFamily = {"llama", "model.", &ParseLlama, &TakeLlamaLayer,
                                    &TakeLlamaOuter};

}  // namespace hanmo
