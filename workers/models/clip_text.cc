#include "workers/models/clip_text.h"

#include <ATen/core/grad_mode.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "workers/models/model_config.h"
#include "workers/nn/onednn.h"

namespace hanmo {

struct ClipTextEncoder::Config {
  int64_t vocabulary = 49408;
  int64_t width = 512;
  int64_t layers = 12;
  int64_t heads = 8;
  int64_t inner = 2048;
  int64_t positions = 77;
  double eps = 1e-5;
  Activation activation = Activation::kQuickGelu;

  static absl::StatusOr<Config> FromJson(const nlohmann::json& json);
};

absl::StatusOr<ClipTextEncoder::Config> ClipTextEncoder::Config::FromJson(
    const nlohmann::json& json) {
  ModelConfig config(json, "text_encoder");
  Config clip;
  clip.vocabulary = config.Integer("vocab_size", 49408, {1, 1 << 24});
  clip.width = config.Integer("hidden_size", 512);
  clip.layers = config.Integer("num_hidden_layers", 12, {1, 1000});
  clip.heads = config.Integer("num_attention_heads", 8, {1, 1024});
  clip.inner = config.Integer("intermediate_size", 2048, {1, 1 << 20});
  clip.positions = config.Integer("max_position_embeddings", 77, {1, 1 << 20});
  clip.eps = config.Real("layer_norm_eps", 1e-5, {0, 1});
  const std::string activation = config.String("hidden_act", "quick_gelu");
  if (const auto named = ActivationNamed(activation)) {
    clip.activation = *named;
  } else {
    config.Fail("hidden_act", absl::StrCat(activation, " is not supported"));
  }
  config.Require("use_attention_mask", false);
  if (clip.width % clip.heads != 0) {
    config.Fail("num_attention_heads", "must divide hidden_size");
  }
  if (!config.status().ok()) return config.status();
  return clip;
}

ClipTextEncoder::ClipTextEncoder(const WeightScope& weights, const Config& config,
                                 ModelOptions options)
    : options_(options),
      dtype_(onednn::ComputeType(weights.checkpoint().options().dtype,
                                 weights.checkpoint().options().device)),
      traits_(
          {.max_length = config.positions, .width = config.width, .vocabulary = config.vocabulary}),
      activation_(config.activation) {
  const int64_t width = config.width;
  words_ = weights.Take("embeddings.token_embedding.weight", {config.vocabulary, width});
  positions_ = weights.Take("embeddings.position_embedding.weight", {config.positions, width});
  for (int64_t i = 0; i < config.layers; ++i) {
    const WeightScope from = weights.Sub("encoder.layers", i);
    Layer layer;
    layer.attention_norm = LayerNorm(from.Sub("layer_norm1"), width, config.eps);
    layer.attention =
        Attention(from.Sub("self_attn"),
                  {.width = width, .heads = config.heads, .qkv_bias = true, .causal = true},
                  {.q = "q_proj", .k = "k_proj", .v = "v_proj", .out = "out_proj"});
    layer.mlp_norm = LayerNorm(from.Sub("layer_norm2"), width, config.eps);
    layer.widen = Linear(from.Sub("mlp.fc1"), width, config.inner);
    layer.narrow = Linear(from.Sub("mlp.fc2"), config.inner, width);
    layers_.push_back(std::move(layer));
  }
  final_norm_ = LayerNorm(weights.Sub("final_layer_norm"), width, config.eps);
}

absl::StatusOr<std::unique_ptr<ClipTextEncoder>> ClipTextEncoder::Load(Checkpoint& checkpoint,
                                                                       ModelOptions options) {
  const absl::StatusOr<Config> config = Config::FromJson(checkpoint.config());
  if (!config.ok()) return config.status();
  const absl::Status renamed = checkpoint.Rename(
      [](absl::string_view name) { return std::string(absl::StripPrefix(name, "text_model.")); });
  if (!renamed.ok()) return renamed;
  at::NoGradGuard no_grad;
  const WeightScope weights(checkpoint);
  std::unique_ptr<ClipTextEncoder> encoder(new ClipTextEncoder(weights, *config, options));
  if (!weights.status().ok()) return weights.status();
  return encoder;
}

at::Tensor ClipTextEncoder::Encode(const at::Tensor& ids) const {
  at::NoGradGuard no_grad;
  if (!options_.deterministic || ids.is_cpu() || ids.size(0) == 1) return Run(ids);
  std::vector<at::Tensor> rows;
  for (const at::Tensor& row : ids.split(1)) rows.push_back(Run(row));
  return at::cat(rows);
}

at::Tensor ClipTextEncoder::Run(const at::Tensor& ids) const {
  at::Tensor hidden = at::embedding(words_, ids).to(dtype_) + positions_.narrow(0, 0, ids.size(1));
  for (const Layer& layer : layers_) {
    hidden = layer.attention.Add(layer.attention_norm(hidden), {}, hidden);
    hidden = layer.narrow.Add(layer.widen(layer.mlp_norm(hidden), activation_), hidden);
  }
  return final_norm_(hidden);
}

}  // namespace hanmo
