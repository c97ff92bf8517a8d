// The text encoder of Taiyi-Stable-Diffusion and of Chinese CLIP models (transformers' BertModel
// without its pooler).
#ifndef HANMO_WORKERS_MODELS_BERT_H_
#define HANMO_WORKERS_MODELS_BERT_H_

#include <ATen/ATen.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/models/text_encoder.h"
#include "workers/nn/attention.h"
#include "workers/nn/linear.h"
#include "workers/nn/model_options.h"
#include "workers/nn/norm.h"

namespace hanmo {

class BertTextEncoder : public TextEncoder {
 public:
  // Takes names with or without the prefix "bert."; heads and poolers are ignored.
  static absl::StatusOr<std::unique_ptr<BertTextEncoder>> Load(Checkpoint& checkpoint,
                                                               ModelOptions options);
  // The same from tensors below `weights`, named as in BertModel, and BertConfig's keys; `model`
  // names the component in errors.
  static absl::StatusOr<std::unique_ptr<BertTextEncoder>> LoadFrom(const WeightScope& weights,
                                                                   const nlohmann::json& config,
                                                                   ModelOptions options,
                                                                   const std::string& model);

  // All tokens are of type 0 and no attention mask is applied.
  at::Tensor Encode(const at::Tensor& ids) const override;

  const TextEncoderTraits& traits() const override { return traits_; }

 private:
  struct Config;
  struct Layer {
    Attention attention;
    LayerNorm attention_norm;
    Linear widen, narrow;
    LayerNorm output_norm;
  };

  BertTextEncoder(const WeightScope& weights, const Config& config, ModelOptions options);
  at::Tensor Run(const at::Tensor& ids) const;

  ModelOptions options_;
  at::ScalarType dtype_;  // of activations
  TextEncoderTraits traits_;
  Activation activation_;
  at::Tensor words_;  // embeddings [vocabulary, width]
  at::Tensor type_;   // of token type 0
  at::Tensor positions_;
  LayerNorm embedding_norm_;
  std::vector<Layer> layers_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_BERT_H_
