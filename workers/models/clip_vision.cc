#include "workers/models/clip_vision.h"

#include <ATen/core/grad_mode.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "workers/models/model_config.h"
#include "workers/nn/onednn.h"

namespace hanmo {

struct ClipVision::Config {
  int64_t width = 768;
  int64_t layers = 12;
  int64_t heads = 12;
  int64_t inner = 3072;
  int64_t size = 224;
  int64_t patch = 32;
  double eps = 1e-5;
  Activation activation = Activation::kQuickGelu;

  static absl::StatusOr<Config> FromJson(const nlohmann::json& json);
};

absl::StatusOr<ClipVision::Config> ClipVision::Config::FromJson(const nlohmann::json& json) {
  const auto nested = json.find("vision_config");
  ModelConfig config(nested == json.end() ? json : *nested, "reranker vision");
  Config clip;
  clip.width = config.Integer("hidden_size", 768);
  clip.layers = config.Integer("num_hidden_layers", 12, {1, 1000});
  clip.heads = config.Integer("num_attention_heads", 12, {1, 1024});
  clip.inner = config.Integer("intermediate_size", 3072, {1, 1 << 20});
  clip.size = config.Integer("image_size", 224, {1, 4096});
  clip.patch = config.Integer("patch_size", 32, {1, 4096});
  clip.eps = config.Real("layer_norm_eps", 1e-5, {0, 1});
  config.Require("num_channels", 3);
  const std::string activation = config.String("hidden_act", "quick_gelu");
  if (const auto named = ActivationNamed(activation)) {
    clip.activation = *named;
  } else {
    config.Fail("hidden_act", absl::StrCat(activation, " is not supported"));
  }
  if (!config.status().ok()) return config.status();
  if (clip.width % clip.heads != 0) config.Fail("num_attention_heads", "must divide hidden_size");
  if (clip.size % clip.patch != 0) config.Fail("patch_size", "must divide image_size");
  if (!config.status().ok()) return config.status();
  return clip;
}

ClipVision::ClipVision(const WeightScope& weights, const Config& config, ModelOptions options)
    : options_(options),
      dtype_(onednn::ComputeType(weights.checkpoint().options().dtype,
                                 weights.checkpoint().options().device)),
      traits_({.size = config.size}),
      activation_(config.activation),
      patch_(config.patch) {
  const WeightScope model = weights.Sub("vision_model");
  const WeightScope embeddings = model.Sub("embeddings");
  const int64_t width = config.width;
  const int64_t side = config.size / config.patch;
  const at::Tensor kernel =
      embeddings.Take("patch_embedding.weight", {width, 3, config.patch, config.patch});
  if (!weights.status().ok()) return;
  patches_ = Linear(kernel.flatten(1), at::Tensor());
  class_ = embeddings.Take("class_embedding", {width});
  places_ = embeddings.Take("position_embedding.weight", {1 + side * side, width});
  first_norm_ = LayerNorm(model.Sub("pre_layrnorm"), width, config.eps);  // misspelt as published
  for (int64_t i = 0; i < config.layers; ++i) {
    const WeightScope from = model.Sub("encoder.layers", i);
    Layer layer;
    layer.attention_norm = LayerNorm(from.Sub("layer_norm1"), width, config.eps);
    layer.attention =
        Attention(from.Sub("self_attn"), {.width = width, .heads = config.heads, .qkv_bias = true},
                  {.q = "q_proj", .k = "k_proj", .v = "v_proj", .out = "out_proj"});
    layer.mlp_norm = LayerNorm(from.Sub("layer_norm2"), width, config.eps);
    layer.widen = Linear(from.Sub("mlp.fc1"), width, config.inner);
    layer.narrow = Linear(from.Sub("mlp.fc2"), config.inner, width);
    layers_.push_back(std::move(layer));
  }
  last_norm_ = LayerNorm(model.Sub("post_layernorm"), width, config.eps);
  const std::vector<int64_t> shape = weights.Shape("visual_projection.weight");
  if (shape.size() == 2) traits_.width = shape[0];
  project_ = Linear(weights.Sub("visual_projection"), width, traits_.width, /*bias=*/false);
}

absl::StatusOr<std::unique_ptr<ClipVision>> ClipVision::Load(Checkpoint& checkpoint,
                                                             ModelOptions options) {
  const absl::StatusOr<Config> config = Config::FromJson(checkpoint.config());
  if (!config.ok()) return config.status();
  at::NoGradGuard no_grad;
  const WeightScope weights(checkpoint);
  std::unique_ptr<ClipVision> vision(new ClipVision(weights, *config, options));
  if (!weights.status().ok()) return weights.status();
  return vision;
}

at::Tensor ClipVision::Encode(const at::Tensor& pictures) const {
  at::NoGradGuard no_grad;
  if (!options_.deterministic || pictures.is_cpu() || pictures.size(0) == 1) return Run(pictures);
  std::vector<at::Tensor> rows;
  for (const at::Tensor& row : pictures.split(1)) rows.push_back(Run(row));
  return at::cat(rows);
}

at::Tensor ClipVision::Run(const at::Tensor& pictures) const {
  const int64_t n = pictures.size(0), side = traits_.size / patch_;
  const at::Tensor pixels = pictures.to(dtype_)
                                .reshape({n, 3, side, patch_, side, patch_})
                                .permute({0, 2, 4, 1, 3, 5})
                                .reshape({n, side * side, 3 * patch_ * patch_});
  const at::Tensor first = class_.to(dtype_).expand({n, 1, class_.size(0)});
  at::Tensor hidden = first_norm_(at::cat({first, patches_(pixels)}, 1) + places_);
  for (const Layer& layer : layers_) {
    hidden = layer.attention.Add(layer.attention_norm(hidden), {}, hidden);
    hidden = layer.narrow.Add(layer.widen(layer.mlp_norm(hidden), activation_), hidden);
  }
  return project_(last_norm_(hidden.select(1, 0).contiguous())).to(at::kFloat);
}

}  // namespace hanmo
