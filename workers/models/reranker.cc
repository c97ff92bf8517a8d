#include "workers/models/reranker.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>

#include "absl/strings/str_cat.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/models/model_config.h"

namespace hanmo {
namespace {

// More texts than are painted at a time.
constexpr size_t kKnownTexts = 64;

float Cosine(const at::Tensor& a, const at::Tensor& b) {
  const float* x = a.const_data_ptr<float>();
  const float* y = b.const_data_ptr<float>();
  double xy = 0, xx = 0, yy = 0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    xy += double{x[i]} * y[i];
    xx += double{x[i]} * x[i];
    yy += double{y[i]} * y[i];
  }
  const double cosine = xy / std::sqrt(xx * yy);
  // Rounding may lead beyond the ends.
  return std::isfinite(cosine) ? static_cast<float>(std::clamp(cosine, -1.0, 1.0))
                               : std::numeric_limits<float>::quiet_NaN();
}

absl::StatusOr<nlohmann::json> ReadPreprocessor(const std::string& folder) {
  const std::string path = folder + "/preprocessor_config.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return nlohmann::json::object();
  std::ifstream file(path);
  nlohmann::json json = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  return absl::InvalidArgumentError(absl::StrCat(path, ": a JSON object expected"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<Reranker>> Reranker::Load(
    const std::string& folder, const std::string& class_name,
    const CheckpointOptions& checkpoint_options, ModelOptions options) {
  HANMO_ASSIGN_OR_RETURN(Checkpoint checkpoint, Checkpoint::Open(folder, checkpoint_options));
  ModelConfig config(checkpoint.config(), "reranker");
  const bool classifies = class_name == "BertForSequenceClassification";
  if (!classifies && class_name != "ChineseCLIPModel" && class_name != "TaiyiCLIPModel") {
    return absl::InvalidArgumentError(
        absl::StrCat("model_index.json: reranker: \"", class_name,
                     "\" found, ChineseCLIPModel, TaiyiCLIPModel or BertForSequenceClassification "
                     "expected"));
  }
  const std::string pooling = config.String("text_pooling", classifies ? "seqcls_logits" : "cls");
  if (classifies != (pooling == "seqcls_logits") ||
      (!classifies && pooling != "cls" && pooling != "pooler")) {
    config.Fail("text_pooling", absl::StrCat("\"", pooling, "\" found, ",
                                             classifies ? "seqcls_logits" : "cls or pooler",
                                             " expected of a ", class_name));
  }
  if (!config.status().ok()) return config.status();

  at::NoGradGuard no_grad;
  std::unique_ptr<Reranker> reranker(new Reranker());
  reranker->device_ = checkpoint_options.device;
  HANMO_RETURN_IF_ERROR(reranker->LoadText(checkpoint,
                                           classifies            ? Pooling::kClassifier
                                           : pooling == "pooler" ? Pooling::kPooler
                                                                 : Pooling::kCls,
                                           options));
  if (classifies) {
    const std::string tower = folder + "/vision_model";
    HANMO_ASSIGN_OR_RETURN(Checkpoint vision, Checkpoint::Open(tower, checkpoint_options));
    HANMO_RETURN_IF_ERROR(reranker->LoadVision(vision, tower, options));
    reranker->weight_bytes_ += vision.taken_bytes();
  } else {
    HANMO_RETURN_IF_ERROR(reranker->LoadVision(checkpoint, folder, options));
  }
  reranker->weight_bytes_ += checkpoint.taken_bytes();
  if (reranker->text_width_ != reranker->vision_->traits().width) {
    return absl::InvalidArgumentError(
        absl::StrCat("reranker: the text's features have ", reranker->text_width_,
                     " elements, the picture's ", reranker->vision_->traits().width));
  }
  return reranker;
}

absl::Status Reranker::LoadText(Checkpoint& checkpoint, Pooling pooling, ModelOptions options) {
  const WeightScope weights(checkpoint);
  const bool classifies = pooling == Pooling::kClassifier;
  const nlohmann::json& root = checkpoint.config();
  const nlohmann::json& config = classifies                     ? root
                                 : root.contains("text_config") ? root["text_config"]
                                                                : nlohmann::json();
  const WeightScope bert = weights.Sub(classifies ? "bert" : "text_model");
  HANMO_ASSIGN_OR_RETURN(text_, BertTextEncoder::LoadFrom(bert, config, options, "reranker text"));
  const int64_t width = text_->traits().width;
  if (pooling != Pooling::kCls) pooler_ = Linear(bert.Sub("pooler.dense"), width, width);
  const char* last = classifies ? "classifier" : "text_projection";
  const std::vector<int64_t> shape = weights.Shape(absl::StrCat(last, ".weight"));
  if (shape.size() == 2) text_width_ = shape[0];
  project_text_ = Linear(weights.Sub(last), width, text_width_, /*bias=*/classifies);
  return weights.status();
}

absl::Status Reranker::LoadVision(Checkpoint& checkpoint, const std::string& folder,
                                  ModelOptions options) {
  HANMO_ASSIGN_OR_RETURN(vision_, ClipVision::Load(checkpoint, options));
  HANMO_ASSIGN_OR_RETURN(const nlohmann::json json, ReadPreprocessor(folder));
  HANMO_ASSIGN_OR_RETURN(prepare_, ClipPreprocessor::FromJson(json, vision_->traits().size));
  return absl::OkStatus();
}

absl::Status Reranker::CheckPrompt(const std::vector<uint32_t>& prompt) const {
  const TextEncoderTraits& traits = text_->traits();
  if (prompt.empty() || static_cast<int64_t>(prompt.size()) > traits.max_length) {
    return absl::InvalidArgumentError(absl::StrCat(
        "score_prompt: ", prompt.size(), " tokens, 1 to ", traits.max_length, " expected"));
  }
  const uint32_t largest = *std::max_element(prompt.begin(), prompt.end());
  if (largest < traits.vocabulary) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("score_prompt: token ", largest, ", below ", traits.vocabulary, " expected"));
}

at::Tensor Reranker::EncodeText(const std::vector<uint32_t>& prompt) const {
  at::NoGradGuard no_grad;
  const std::vector<int64_t> ids(prompt.begin(), prompt.end());
  const at::Tensor hidden = text_->Encode(at::tensor(ids, at::kLong).unsqueeze(0).to(device_));
  at::Tensor first = hidden.select(1, 0).contiguous();
  if (pooler_.defined()) first = at::tanh(pooler_(first));
  return project_text_(first).to(at::kCPU, at::kFloat);
}

at::Tensor Reranker::EncodePictures(const at::Tensor& rgb) const {
  return vision_->Encode(prepare_(rgb).to(device_)).cpu();
}

at::Tensor Reranker::KnownText(const std::vector<uint32_t>& prompt) {
  const auto known = std::find_if(known_texts_.begin(), known_texts_.end(),
                                  [&](const auto& entry) { return entry.first == prompt; });
  if (known != known_texts_.end()) return known->second;
  const at::Tensor features = EncodeText(prompt);
  if (known_texts_.size() == kKnownTexts) known_texts_.pop_front();
  known_texts_.emplace_back(prompt, features);
  return features;
}

std::vector<float> Reranker::Score(absl::Span<const std::vector<uint32_t>* const> prompts,
                                   const at::Tensor& rgb) {
  const at::Tensor pictures = EncodePictures(rgb);
  std::vector<float> scores;
  for (size_t i = 0; i < prompts.size(); ++i) {
    scores.push_back(Cosine(KnownText(*prompts[i]), pictures[static_cast<int64_t>(i)]));
  }
  return scores;
}

std::string RerankerClass(const nlohmann::json& model_index) {
  const auto entry = model_index.find("reranker");
  if (entry == model_index.end() || !entry->is_array() || entry->size() != 2 ||
      !(*entry)[1].is_string()) {
    return "";
  }
  return (*entry)[1];
}

}  // namespace hanmo
