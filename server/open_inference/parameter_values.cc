#include "server/open_inference/parameter_values.h"

#include <cfloat>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "hanmo/v1/generation.pb.h"
#include "server/rpc/request_from_proto.h"
#include "server/rpc/violations.h"

namespace hanmo {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using inference::InferParameter;

// Elements of a list that all prompts share.
constexpr size_t kMaxWords = 1024;

using Integers = std::vector<absl::int128>;
using Floats = std::vector<double>;
using Booleans = std::vector<bool>;
using Texts = std::vector<std::string>;
using Values = ParameterValues;

template <typename T>
absl::StatusOr<Values> AsValues(absl::StatusOr<T> values) {
  if (!values.ok()) return values.status();
  return Values(*std::move(values));
}

template <typename Unsigned>
absl::StatusOr<Unsigned> Narrow(absl::string_view name, absl::int128 value) {
  if (value >= 0 && value <= std::numeric_limits<Unsigned>::max()) {
    return static_cast<Unsigned>(value);
  }
  return FieldError(name, absl::StrCat("must be in [0, ", std::numeric_limits<Unsigned>::max(),
                                       "], got ", static_cast<double>(value)));
}

// Beyond float's range the cast would be undefined; infinity is refused with its field's range.
float ToFloat(double value) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  if (value > FLT_MAX) return kInfinity;
  if (value < -FLT_MAX) return -kInfinity;
  return static_cast<float>(value);
}

absl::Status SetFormat(const FieldDescriptor& field, const std::string& word, Message* message) {
  if (word != "png" && word != "jpeg" && word != "webp") {
    return FieldError(field.name(), "must be \"png\", \"jpeg\" or \"webp\"");
  }
  hanmo::v1::PictureFormat format = hanmo::v1::PICTURE_FORMAT_UNSPECIFIED;
  hanmo::v1::PictureFormat_Parse(absl::StrCat("PICTURE_FORMAT_", absl::AsciiStrToUpper(word)),
                                 &format);
  message->GetReflection()->SetEnumValue(message, &field, format);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Values> ValuesOf(const InputTensor& tensor, const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64:
      return AsValues(tensor.Integers());
    case FieldDescriptor::CPPTYPE_FLOAT:
      return AsValues(tensor.Floats());
    case FieldDescriptor::CPPTYPE_BOOL:
      return AsValues(tensor.Booleans());
    default:
      return AsValues(tensor.Texts());
  }
}

absl::StatusOr<absl::int128> IntegerOf(absl::string_view name, const InferParameter& parameter) {
  if (parameter.has_int64_param()) return absl::int128(parameter.int64_param());
  if (parameter.has_uint64_param()) return absl::int128(parameter.uint64_param());
  return FieldError(name, "must be an int64_param or a uint64_param");
}

absl::StatusOr<bool> BooleanOf(absl::string_view name, const InferParameter& parameter) {
  if (parameter.has_bool_param()) return parameter.bool_param();
  return FieldError(name, "must be a bool_param");
}

absl::StatusOr<std::string> TextOf(absl::string_view name, const InferParameter& parameter) {
  if (parameter.has_string_param()) return parameter.string_param();
  return FieldError(name, "must be a string_param");
}

absl::StatusOr<Values> ValuesOf(absl::string_view name, const InferParameter& parameter,
                                const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64: {
      auto value = IntegerOf(name, parameter);
      if (!value.ok()) return value.status();
      return Values(Integers{*value});
    }
    case FieldDescriptor::CPPTYPE_FLOAT: {
      if (parameter.has_double_param()) return Values(Floats{parameter.double_param()});
      auto value = IntegerOf(name, parameter);
      if (!value.ok()) return FieldError(name, "must be a double_param or an int64_param");
      return Values(Floats{static_cast<double>(*value)});
    }
    case FieldDescriptor::CPPTYPE_BOOL: {
      auto value = BooleanOf(name, parameter);
      if (!value.ok()) return value.status();
      return Values(Booleans{*value});
    }
    default: {
      auto value = TextOf(name, parameter);
      if (!value.ok()) return value.status();
      return Values(Texts{*std::move(value)});
    }
  }
}

absl::StatusOr<uint32_t> ToUint32(absl::string_view name, absl::int128 value) {
  return Narrow<uint32_t>(name, value);
}

absl::Status SetField(const FieldDescriptor& field, const Values& values, size_t index,
                      Message* message) {
  const auto& reflection = *message->GetReflection();
  const std::string& name = field.name();
  if (field.is_repeated()) {
    for (const std::string& word : std::get<Texts>(values)) {
      reflection.AddString(message, &field, word);
    }
    return absl::OkStatus();
  }
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32: {
      auto value = Narrow<uint32_t>(name, std::get<Integers>(values)[index]);
      if (!value.ok()) return value.status();
      reflection.SetUInt32(message, &field, *value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_UINT64: {
      auto value = Narrow<uint64_t>(name, std::get<Integers>(values)[index]);
      if (!value.ok()) return value.status();
      reflection.SetUInt64(message, &field, *value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_FLOAT:
      reflection.SetFloat(message, &field, ToFloat(std::get<Floats>(values)[index]));
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_BOOL:
      reflection.SetBool(message, &field, std::get<Booleans>(values)[index]);
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_ENUM:
      return SetFormat(field, std::get<Texts>(values)[index], message);
    default:
      reflection.SetString(message, &field, std::get<Texts>(values)[index]);
      return absl::OkStatus();
  }
}

size_t CountOf(const Values& values) {
  return std::visit([](const auto& list) { return list.size(); }, values);
}

absl::Status CheckSize(absl::string_view name, const Values& values) {
  const Texts* texts = std::get_if<Texts>(&values);
  if (texts == nullptr) return absl::OkStatus();
  if (texts->size() > kMaxWords) {
    return FieldError(
        name, absl::StrCat("must be at most ", kMaxWords, " elements, got ", texts->size()));
  }
  size_t bytes = 0;
  for (const std::string& text : *texts) bytes += text.size();
  if (bytes <= kMaxTextBytes) return absl::OkStatus();
  return FieldError(
      name, absl::StrCat("must be at most ", kMaxTextBytes, " bytes together, got ", bytes));
}

}  // namespace hanmo
