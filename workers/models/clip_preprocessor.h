// From pictures as they are stored to what a CLIP model sees: transformers' CLIPImageProcessor and
// ChineseCLIPImageProcessor.
#ifndef HANMO_WORKERS_MODELS_CLIP_PREPROCESSOR_H_
#define HANMO_WORKERS_MODELS_CLIP_PREPROCESSOR_H_

#include <ATen/ATen.h>

#include <array>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "workers/kernels/resize.h"

namespace hanmo {

// Immutable; calls are thread-safe.
class ClipPreprocessor {
 public:
  // From preprocessor_config.json (an empty object where there is none), for a model of pictures of
  // `size` pixels. INVALID_ARGUMENT names the key that can't be served.
  static absl::StatusOr<ClipPreprocessor> FromJson(const nlohmann::json& json, int64_t size);

  // rgb [n, h, w, 3] uint8 on the CPU -> [n, 3, size, size] float32: resized as Pillow does it, bit
  // for bit, cropped to the middle, rescaled and normalised.
  at::Tensor operator()(const at::Tensor& rgb) const;

 private:
  // Of the resized picture.
  PictureSize SizeFor(PictureSize picture) const;

  int64_t size_ = 224;    // of the crop
  int64_t shortest_ = 0;  // the shorter side becomes this long; 0: both sides are given
  PictureSize resized_;
  // What each of the 256 levels of a channel becomes.
  std::array<std::array<float, 256>, 3> levels_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_CLIP_PREPROCESSOR_H_
