#include "workers/models/clip_preprocessor.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "workers/models/model_config.h"

namespace hanmo {
namespace {

constexpr double kBicubic = 3;  // Pillow's number of it
constexpr double kOpenAiMean[] = {0.48145466, 0.4578275, 0.40821073};
constexpr double kOpenAiStd[] = {0.26862954, 0.26130258, 0.27577711};

// A size is written as one number or as an object of named sides.
const nlohmann::json* Side(const nlohmann::json& json, const char* key, const char* side) {
  const auto size = json.find(key);
  if (size == json.end() || !size->is_object()) return nullptr;
  const auto found = size->find(side);
  return found == size->end() || found->is_null() ? nullptr : &*found;
}

int64_t SideOr(const nlohmann::json* side, int64_t absent, const char* key, ModelConfig* config) {
  if (side == nullptr) return absent;
  if (side->is_number_integer() && *side >= 1 && *side <= 4096) return side->get<int64_t>();
  config->Fail(key, "must have sides from 1 to 4096");
  return absent;
}

double Channel(const nlohmann::json& json, const char* key, int channel, double absent,
               ModelConfig* config) {
  const auto list = json.find(key);
  if (list == json.end() || list->is_null()) return absent;
  if (list->is_array() && list->size() == 3 && (*list)[channel].is_number()) {
    return (*list)[channel].get<double>();
  }
  config->Fail(key, "must be three numbers");
  return absent;
}

}  // namespace

absl::StatusOr<ClipPreprocessor> ClipPreprocessor::FromJson(const nlohmann::json& json,
                                                            int64_t size) {
  ModelConfig config(json, "reranker", "preprocessor_config.json");
  if (!config.status().ok()) return config.status();
  config.Require("do_resize", true);
  config.Require("do_rescale", true);
  config.Require("resample", kBicubic);
  ClipPreprocessor made;
  made.size_ = size;

  const auto resized = json.find("size");
  if (resized != json.end() && resized->is_number()) {
    made.shortest_ = config.Integer("size", size, {1, 4096});
  } else if (Side(json, "size", "height") != nullptr || Side(json, "size", "width") != nullptr) {
    made.resized_.height = SideOr(Side(json, "size", "height"), size, "size", &config);
    made.resized_.width = SideOr(Side(json, "size", "width"), size, "size", &config);
  } else {
    made.shortest_ = SideOr(Side(json, "size", "shortest_edge"), size, "size", &config);
  }
  const int64_t smallest =
      made.shortest_ > 0 ? made.shortest_ : std::min(made.resized_.width, made.resized_.height);
  const bool crops = config.Boolean("do_center_crop", true);
  const auto crop = json.find("crop_size");
  const int64_t whole =
      crop != json.end() && crop->is_number() ? config.Integer("crop_size", size, {1, 4096}) : size;
  const int64_t width = SideOr(Side(json, "crop_size", "width"), whole, "crop_size", &config);
  const int64_t height = SideOr(Side(json, "crop_size", "height"), whole, "crop_size", &config);
  if (crops && (width != size || height != size)) {
    config.Fail("crop_size", absl::StrCat("must be the model's image_size, ", size));
  }
  if (smallest < size) {
    config.Fail("size", absl::StrCat("must be at least the model's image_size, ", size));
  }
  if (!crops && (made.resized_.width != size || made.resized_.height != size)) {
    config.Fail("do_center_crop", absl::StrCat("must be true unless size is ", size, " x ", size));
  }

  const double factor = config.Real("rescale_factor", 1.0 / 255, {0, 1});
  const bool normalises = config.Boolean("do_normalize", true);
  for (int channel = 0; channel < 3; ++channel) {
    const double mean = Channel(json, "image_mean", channel, kOpenAiMean[channel], &config);
    const double std = Channel(json, "image_std", channel, kOpenAiStd[channel], &config);
    if (!(std > 0)) config.Fail("image_std", "must be above 0");
    for (int level = 0; level < 256; ++level) {
      const double value = level * factor;
      made.levels_[channel][level] = static_cast<float>(normalises ? (value - mean) / std : value);
    }
  }
  if (!config.status().ok()) return config.status();
  return made;
}

PictureSize ClipPreprocessor::SizeFor(PictureSize picture) const {
  if (shortest_ == 0) return resized_;
  // The longer side is cut to whole pixels.
  const int64_t longest =
      shortest_ * std::max(picture.width, picture.height) / std::min(picture.width, picture.height);
  return picture.width <= picture.height ? PictureSize{shortest_, longest}
                                         : PictureSize{longest, shortest_};
}

at::Tensor ClipPreprocessor::operator()(const at::Tensor& rgb) const {
  const PictureSize size = {rgb.size(2), rgb.size(1)};
  const PictureSize resized = SizeFor(size);
  const int64_t left = (resized.width - size_) / 2, top = (resized.height - size_) / 2;
  const at::Tensor out = at::empty({rgb.size(0), 3, size_, size_}, at::kFloat);
  float* to = out.data_ptr<float>();
  for (const at::Tensor& picture : rgb.unbind()) {
    const at::Tensor dense = picture.contiguous();
    const std::vector<uint8_t> pixels =
        ResizeBicubic(dense.const_data_ptr<uint8_t>(), size, resized);
    for (int channel = 0; channel < 3; ++channel) {
      for (int64_t y = top; y < top + size_; ++y) {
        const uint8_t* from = pixels.data() + 3 * (y * resized.width + left) + channel;
        for (int64_t x = 0; x < size_; ++x) *to++ = levels_[channel][from[3 * x]];
      }
    }
  }
  return out;
}

}  // namespace hanmo
