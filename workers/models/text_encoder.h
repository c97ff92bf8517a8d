// Turns token ids into the embeddings that a denoising model attends to.
#ifndef HANMO_WORKERS_MODELS_TEXT_ENCODER_H_
#define HANMO_WORKERS_MODELS_TEXT_ENCODER_H_

#include <ATen/ATen.h>

#include <memory>

#include "absl/status/statusor.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/nn/model_options.h"

namespace hanmo {

struct TextEncoderTraits {
  int64_t max_length = 77;  // tokens
  int64_t width = 768;
  int64_t vocabulary = 0;  // ids are below
};

// Immutable after Load; Encode is thread-safe.
class TextEncoder {
 public:
  virtual ~TextEncoder() = default;

  // ids [n, length] int64 on the model's device, 1 ≤ length ≤ max_length, each id in
  // [0, vocabulary) -> the last hidden state [n, length, width], in the type that the
  // model computes in. Padding is
  // attended to like any other token, as the published pipelines do.
  virtual at::Tensor Encode(const at::Tensor& ids) const = 0;

  virtual const TextEncoderTraits& traits() const = 0;
};

// The encoder that the component's config.json names ("architectures", else "model_type"):
// BertModel or CLIPTextModel. INVALID_ARGUMENT names an unknown class, the config key, or the
// tensor that does not fit.
absl::StatusOr<std::unique_ptr<TextEncoder>> LoadTextEncoder(Checkpoint& checkpoint,
                                                             ModelOptions options);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_TEXT_ENCODER_H_
