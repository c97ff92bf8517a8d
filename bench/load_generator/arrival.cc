#include "bench/load_generator/arrival.h"

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace hanmo {
namespace {

constexpr uint64_t kVocabulary = 4000;
constexpr double kMaxSeconds = 86400;
constexpr double kMaxCount = 1 << 20;

// Reads the keys of a line; the first fault is kept.
class Line {
 public:
  explicit Line(absl::string_view text)
      : root_(nlohmann::json::parse(text.begin(), text.end(), nullptr, false)) {
    if (!root_.is_object()) Fail("must be a JSON object");
  }

  const absl::Status& status() const { return status_; }

  bool Has(const char* key) const { return root_.is_object() && root_.contains(key); }

  // From 0 to `max`.
  double Number(const char* key, double fallback, double max) {
    if (!Has(key)) return fallback;
    const nlohmann::json& value = root_[key];
    const double number = value.is_number() ? value.get<double>() : -1;
    if (number >= 0 && number <= max) return number;
    Fail(absl::StrCat(key, " must be 0 to ", max, ", got ", value.dump()));
    return fallback;
  }

  uint32_t Count(const char* key, uint32_t fallback) {
    return static_cast<uint32_t>(Number(key, fallback, kMaxCount));
  }

  std::string Text(const char* key) {
    if (!Has(key)) return "";
    if (root_[key].is_string()) return root_[key].get<std::string>();
    Fail(absl::StrCat(key, " must be a string"));
    return "";
  }

  void Fail(const std::string& what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(what);
  }

 private:
  const nlohmann::json root_;
  absl::Status status_;
};

// Sebastiano Vigna's splitmix64: every bit of the result depends on every bit of `x`.
uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

void FillPicture(Line& line, hanmo::v1::GenerateRequest* request) {
  request->set_prompt(line.Text("prompt"));
  hanmo::v1::PictureParameters* picture = request->mutable_picture();
  if (line.Has("steps")) picture->set_steps(line.Count("steps", 0));
  if (line.Has("width")) picture->set_width(line.Count("width", 0));
  if (line.Has("height")) picture->set_height(line.Count("height", 0));
  if (line.Has("guidance")) picture->set_guidance(line.Number("guidance", 0, 100));
  if (line.Has("sampler")) picture->set_sampler(line.Text("sampler"));
  picture->set_seed(static_cast<uint64_t>(line.Number("seed", 0, 1e15)));
}

void FillText(Line& line, hanmo::v1::GenerateRequest* request) {
  const auto seed = static_cast<uint64_t>(line.Number("seed", 0, 1e15));
  *request->mutable_token_ids() =
      PromptIds(seed, line.Count("prefix_tokens", 0), line.Count("prompt_tokens", 1));
  hanmo::v1::TextParameters* text = request->mutable_text();
  text->set_max_tokens(line.Count("max_tokens", 1));
  // Lengths are the trace's, whatever the model would like to end.
  text->set_ignore_eos(true);
  text->set_temperature(line.Number("temperature", 1, 100));
  text->set_seed(seed);
}

void FillCaption(Line& line, hanmo::v1::GenerateRequest* request) {
  const std::string path = line.Text("file");
  std::ifstream file(path, std::ios::binary);
  if (!file) line.Fail(absl::StrCat("file cannot be read: \"", path, "\""));
  request->mutable_parts()->add_parts()->mutable_picture()->set_data(
      std::string(std::istreambuf_iterator<char>(file), {}));
  request->mutable_text()->set_seed(static_cast<uint64_t>(line.Number("seed", 0, 1e15)));
}

}  // namespace

hanmo::v1::TokenIds PromptIds(uint64_t seed, uint32_t prefix, uint32_t count) {
  hanmo::v1::TokenIds prompt;
  prompt.mutable_ids()->Reserve(static_cast<int>(count));
  for (uint64_t i = 0; i < count; ++i) {
    prompt.add_ids(1 + Mix(i < prefix ? i : Mix(seed) + i) % kVocabulary);
  }
  return prompt;
}

absl::StatusOr<Arrival> ParseArrival(absl::string_view text) {
  Line line(text);
  Arrival arrival;
  arrival.at = absl::Seconds(line.Number("at_s", 0, kMaxSeconds));
  if (line.Has("deadline_s")) {
    arrival.deadline = absl::Seconds(line.Number("deadline_s", 0, kMaxSeconds));
  }
  arrival.repeat = line.Number("repeat", 0, 1) != 0;
  arrival.request.set_model(line.Text("model"));
  const std::string kind = line.Text("kind");
  if (kind == "picture") {
    FillPicture(line, &arrival.request);
  } else if (kind == "text") {
    FillText(line, &arrival.request);
  } else if (kind == "caption") {
    FillCaption(line, &arrival.request);
  } else {
    line.Fail(absl::StrCat("kind must be picture, text or caption, got \"", kind, "\""));
  }
  if (!line.status().ok()) return line.status();
  return arrival;
}

}  // namespace hanmo
