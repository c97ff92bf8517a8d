#include "workers/models/model_config.h"

#include <cmath>

#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

// More layers or blocks than any published model has; bounds the work a hostile config can ask for.
constexpr size_t kMaxListLength = 64;

}  // namespace

ModelConfig::ModelConfig(const nlohmann::json& config, std::string model, std::string file)
    : config_(config), origin_(absl::StrCat(model, " ", file)) {
  if (!config.is_object()) {
    status_ = absl::InvalidArgumentError(absl::StrCat(origin_, ": must be an object"));
  }
}

int64_t ModelConfig::Integer(absl::string_view key, int64_t absent, Range range) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return absent;
  const double number = Number(key, *value, range);
  if (number != std::floor(number)) Fail(key, "must be an integer");
  return status_.ok() ? static_cast<int64_t>(number) : absent;
}

double ModelConfig::Real(absl::string_view key, double absent, Range range) {
  const nlohmann::json* value = Find(key);
  return value == nullptr ? absent : Number(key, *value, range);
}

bool ModelConfig::Boolean(absl::string_view key, bool absent) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return absent;
  if (!value->is_boolean()) {
    Fail(key, "must be true or false");
    return absent;
  }
  return value->get<bool>();
}

std::string ModelConfig::String(absl::string_view key, absl::string_view absent) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return std::string(absent);
  if (!value->is_string()) {
    Fail(key, "must be a string");
    return std::string(absent);
  }
  return value->get<std::string>();
}

std::vector<int64_t> ModelConfig::Integers(absl::string_view key, size_t count, int64_t absent,
                                           Range range) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr || !value->is_array()) {
    return std::vector<int64_t>(count, Integer(key, absent, range));
  }
  std::vector<int64_t> list = IntegerList(key, {}, range);
  if (list.size() != count) Fail(key, absl::StrCat("must be a number or ", count, " numbers"));
  list.resize(count, absent);
  return list;
}

std::vector<int64_t> ModelConfig::IntegerList(absl::string_view key,
                                              const std::vector<int64_t>& absent, Range range) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return absent;
  if (!value->is_array() || value->empty() || value->size() > kMaxListLength) {
    Fail(key, absl::StrCat("must be a list of 1 to ", kMaxListLength, " integers"));
    return absent;
  }
  std::vector<int64_t> list;
  for (const nlohmann::json& element : *value) {
    const double number = Number(key, element, range);
    if (number != std::floor(number)) Fail(key, "must hold integers");
    list.push_back(status_.ok() ? static_cast<int64_t>(number) : 1);
  }
  return list;
}

std::vector<std::string> ModelConfig::Strings(absl::string_view key,
                                              const std::vector<std::string>& absent) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr) return absent;
  std::vector<std::string> list;
  if (value->is_array() && !value->empty() && value->size() <= kMaxListLength) {
    for (const nlohmann::json& element : *value) {
      if (element.is_string()) list.push_back(element.get<std::string>());
    }
  }
  if (list.empty() || list.size() != value->size()) {
    Fail(key, absl::StrCat("must be a list of 1 to ", kMaxListLength, " strings"));
    return absent;
  }
  return list;
}

bool ModelConfig::IsNull(absl::string_view key) const {
  if (!config_.is_object()) return false;
  const auto found = config_.find(std::string(key));
  return found != config_.end() && found->is_null();
}

void ModelConfig::Require(absl::string_view key, const nlohmann::json& supported) {
  const nlohmann::json* value = Find(key);
  if (value == nullptr || *value == supported) return;
  Fail(key, absl::StrCat(value->dump(), " is not supported; it must be absent, null or ",
                         supported.dump()));
}

void ModelConfig::Fail(absl::string_view key, absl::string_view problem) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(origin_, ": ", key, ": ", problem));
}

const nlohmann::json* ModelConfig::Find(absl::string_view key) const {
  if (!config_.is_object()) return nullptr;
  const auto found = config_.find(std::string(key));
  return found == config_.end() || found->is_null() ? nullptr : &*found;
}

double ModelConfig::Number(absl::string_view key, const nlohmann::json& value, Range range) {
  const double number = value.is_number() ? value.get<double>() : std::nan("");
  if (!(number >= range.min && number <= range.max)) {
    Fail(key, absl::StrCat("must be a number from ", range.min, " to ", range.max));
    return range.min;
  }
  return number;
}

}  // namespace hanmo
