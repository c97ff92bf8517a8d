#include "workers/models/bert.h"

#include <ATen/core/grad_mode.h>

#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "workers/models/model_config.h"
#include "workers/nn/onednn.h"

namespace hanmo {

struct BertTextEncoder::Config {
  int64_t vocabulary = 30522;
  int64_t width = 768;
  int64_t layers = 12;
  int64_t heads = 12;
  int64_t inner = 3072;
  int64_t positions = 512;
  int64_t token_types = 2;
  double eps = 1e-12;
  Activation activation = Activation::kGelu;

  static absl::StatusOr<Config> FromJson(const nlohmann::json& json, const std::string& model);
};

absl::StatusOr<BertTextEncoder::Config> BertTextEncoder::Config::FromJson(
    const nlohmann::json& json, const std::string& model) {
  ModelConfig config(json, model);
  Config bert;
  bert.vocabulary = config.Integer("vocab_size", 30522, {1, 1 << 24});
  bert.width = config.Integer("hidden_size", 768);
  bert.layers = config.Integer("num_hidden_layers", 12, {1, 1000});
  bert.heads = config.Integer("num_attention_heads", 12, {1, 1024});
  bert.inner = config.Integer("intermediate_size", 3072, {1, 1 << 20});
  bert.positions = config.Integer("max_position_embeddings", 512, {1, 1 << 20});
  bert.token_types = config.Integer("type_vocab_size", 2, {1, 65536});
  bert.eps = config.Real("layer_norm_eps", 1e-12, {0, 1});
  const std::string activation = config.String("hidden_act", "gelu");
  if (const auto named = ActivationNamed(activation)) {
    bert.activation = *named;
  } else {
    config.Fail("hidden_act", absl::StrCat(activation, " is not supported"));
  }
  config.Require("position_embedding_type", "absolute");
  config.Require("is_decoder", false);
  config.Require("use_attention_mask", false);
  if (bert.width % bert.heads != 0) {
    config.Fail("num_attention_heads", "must divide hidden_size");
  }
  if (!config.status().ok()) return config.status();
  return bert;
}

BertTextEncoder::BertTextEncoder(const WeightScope& weights, const Config& config,
                                 ModelOptions options)
    : options_(options),
      dtype_(onednn::ComputeType(weights.checkpoint().options().dtype,
                                 weights.checkpoint().options().device)),
      traits_(
          {.max_length = config.positions, .width = config.width, .vocabulary = config.vocabulary}),
      activation_(config.activation) {
  const WeightScope embeddings = weights.Sub("embeddings");
  const int64_t width = config.width;
  words_ = embeddings.Take("word_embeddings.weight", {config.vocabulary, width});
  type_ = embeddings.Take("token_type_embeddings.weight", {config.token_types, width}).select(0, 0);
  positions_ = embeddings.Take("position_embeddings.weight", {config.positions, width});
  embedding_norm_ = LayerNorm(embeddings.Sub("LayerNorm"), width, config.eps);
  for (int64_t i = 0; i < config.layers; ++i) {
    const WeightScope from = weights.Sub("encoder.layer", i);
    Layer layer;
    layer.attention =
        Attention(from.Sub("attention"), {.width = width, .heads = config.heads, .qkv_bias = true},
                  {.q = "self.query", .k = "self.key", .v = "self.value", .out = "output.dense"});
    layer.attention_norm = LayerNorm(from.Sub("attention.output.LayerNorm"), width, config.eps);
    layer.widen = Linear(from.Sub("intermediate.dense"), width, config.inner);
    layer.narrow = Linear(from.Sub("output.dense"), config.inner, width);
    layer.output_norm = LayerNorm(from.Sub("output.LayerNorm"), width, config.eps);
    layers_.push_back(std::move(layer));
  }
}

absl::StatusOr<std::unique_ptr<BertTextEncoder>> BertTextEncoder::Load(Checkpoint& checkpoint,
                                                                       ModelOptions options) {
  // Checkpoints converted from TensorFlow call a norm's weight and bias gamma and beta.
  const absl::Status renamed = checkpoint.Rename([](absl::string_view name) {
    std::string stripped(absl::StripPrefix(name, "bert."));
    if (absl::EndsWith(stripped, "LayerNorm.gamma")) {
      return absl::StrCat(absl::StripSuffix(stripped, "gamma"), "weight");
    }
    if (absl::EndsWith(stripped, "LayerNorm.beta")) {
      return absl::StrCat(absl::StripSuffix(stripped, "beta"), "bias");
    }
    return stripped;
  });
  if (!renamed.ok()) return renamed;
  return LoadFrom(WeightScope(checkpoint), checkpoint.config(), options, "text_encoder");
}

absl::StatusOr<std::unique_ptr<BertTextEncoder>> BertTextEncoder::LoadFrom(
    const WeightScope& weights, const nlohmann::json& json, ModelOptions options,
    const std::string& model) {
  const absl::StatusOr<Config> config = Config::FromJson(json, model);
  if (!config.ok()) return config.status();
  at::NoGradGuard no_grad;
  std::unique_ptr<BertTextEncoder> encoder(new BertTextEncoder(weights, *config, options));
  if (!weights.status().ok()) return weights.status();
  return encoder;
}

at::Tensor BertTextEncoder::Encode(const at::Tensor& ids) const {
  at::NoGradGuard no_grad;
  if (!options_.deterministic || ids.is_cpu() || ids.size(0) == 1) return Run(ids);
  std::vector<at::Tensor> rows;
  for (const at::Tensor& row : ids.split(1)) rows.push_back(Run(row));
  return at::cat(rows);
}

at::Tensor BertTextEncoder::Run(const at::Tensor& ids) const {
  at::Tensor hidden =
      at::embedding(words_, ids).to(dtype_) + type_ + positions_.narrow(0, 0, ids.size(1));
  hidden = embedding_norm_(hidden);
  for (const Layer& layer : layers_) {
    hidden = layer.attention_norm(layer.attention.Add(hidden, {}, hidden));
    hidden = layer.output_norm(layer.narrow.Add(layer.widen(hidden, activation_), hidden));
  }
  return hidden;
}

}  // namespace hanmo
