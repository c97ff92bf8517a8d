// Tells how well pictures fit a prompt, by a CLIP model: a BERT for the words, a vision transformer
// for the pictures. The layouts are in docs/reranker.md.
#ifndef HANMO_WORKERS_MODELS_RERANKER_H_
#define HANMO_WORKERS_MODELS_RERANKER_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "workers/checkpoint/checkpoint.h"
#include "workers/models/bert.h"
#include "workers/models/clip_preprocessor.h"
#include "workers/models/clip_vision.h"
#include "workers/nn/linear.h"
#include "workers/nn/model_options.h"

namespace hanmo {

// Use from one thread.
class Reranker {
 public:
  // From the folder "reranker" of a picture model, by the class that its model_index.json names.
  // INVALID_ARGUMENT or NOT_FOUND name the file, key or tensor at fault.
  static absl::StatusOr<std::unique_ptr<Reranker>> Load(const std::string& folder,
                                                        const std::string& class_name,
                                                        const CheckpointOptions& checkpoint_options,
                                                        ModelOptions options);

  // INVALID_ARGUMENT unless it has 1 to as many tokens as the model has positions, all of them in
  // its vocabulary. `prompt` is PictureJob::score_prompt.
  absl::Status CheckPrompt(const std::vector<uint32_t>& prompt) const;

  // The cosines of prompts[i], which CheckPrompt takes, and picture i of rgb [n, h, w, 3] uint8 on
  // the CPU: -1 to 1, NaN where a feature is zero or not finite. A score does not depend on the
  // others. The features of the latest texts are kept, so a prompt is encoded once for all of its
  // pictures.
  std::vector<float> Score(absl::Span<const std::vector<uint32_t>* const> prompts,
                           const at::Tensor& rgb);

  // Features before they are normalised, float32 on the CPU: [1, width] and [n, width].
  at::Tensor EncodeText(const std::vector<uint32_t>& prompt) const;
  at::Tensor EncodePictures(const at::Tensor& rgb) const;

  uint64_t weight_bytes() const { return weight_bytes_; }

 private:
  // How the text's features follow from BERT's last hidden state at [CLS].
  enum class Pooling { kCls, kPooler, kClassifier };

  Reranker() = default;
  absl::Status LoadText(Checkpoint& checkpoint, Pooling pooling, ModelOptions options);
  absl::Status LoadVision(Checkpoint& checkpoint, const std::string& folder, ModelOptions options);
  at::Tensor KnownText(const std::vector<uint32_t>& prompt);

  at::Device device_ = at::kCPU;
  std::unique_ptr<BertTextEncoder> text_;
  Linear pooler_;        // undefined for kCls
  Linear project_text_;  // or the classifier
  int64_t text_width_ = 0;
  std::unique_ptr<ClipVision> vision_;
  ClipPreprocessor prepare_;
  uint64_t weight_bytes_ = 0;
  // Newest last.
  std::deque<std::pair<std::vector<uint32_t>, at::Tensor>> known_texts_;
};

// The class of model_index.json's "reranker"; empty where it has none.
std::string RerankerClass(const nlohmann::json& model_index);

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_RERANKER_H_
