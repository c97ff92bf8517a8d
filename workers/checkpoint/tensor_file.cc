#include "workers/checkpoint/tensor_file.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "workers/checkpoint/status_macros.h"

namespace hanmo {
namespace {

struct TypeRow {
  ElementType type;
  absl::string_view safetensors;
  absl::string_view name;
  size_t size;
};

constexpr TypeRow kTypes[] = {
    {ElementType::kFloat64, "F64", "float64", 8}, {ElementType::kFloat32, "F32", "float32", 4},
    {ElementType::kFloat16, "F16", "float16", 2}, {ElementType::kBFloat16, "BF16", "bfloat16", 2},
    {ElementType::kInt64, "I64", "int64", 8},     {ElementType::kInt32, "I32", "int32", 4},
    {ElementType::kInt16, "I16", "int16", 2},     {ElementType::kInt8, "I8", "int8", 1},
    {ElementType::kUint8, "U8", "uint8", 1},      {ElementType::kBool, "BOOL", "bool", 1},
};

const TypeRow& RowOf(ElementType type) { return kTypes[static_cast<size_t>(type)]; }

}  // namespace

size_t ElementSize(ElementType type) { return RowOf(type).size; }

absl::string_view ElementTypeName(ElementType type) { return RowOf(type).name; }

std::optional<ElementType> ElementTypeFromSafetensors(absl::string_view name) {
  for (const TypeRow& row : kTypes) {
    if (row.safetensors == name) return row.type;
  }
  return std::nullopt;
}

int64_t TensorEntry::elements() const {
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  return count;
}

bool TensorEntry::contiguous() const {
  int64_t expected = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    if (shape[i] != 1 && strides[i] != expected) return elements() == 0;
    expected *= shape[i];
  }
  return true;
}

absl::StatusOr<std::vector<int64_t>> ContiguousStrides(absl::Span<const int64_t> shape) {
  if (shape.size() > kMaxRank) {
    return absl::InvalidArgumentError(absl::StrCat("a tensor has ", shape.size(),
                                                   " dimensions, at most ", kMaxRank, " are read"));
  }
  std::vector<int64_t> strides(shape.size());
  int64_t step = 1;
  // Empty dimensions count as one, so that no order of the factors can overflow in elements().
  for (size_t i = shape.size(); i-- > 0;) {
    strides[i] = step;
    const int64_t dim = shape[i] == 0 ? 1 : shape[i];
    if (dim < 0 || __builtin_mul_overflow(step, dim, &step)) {
      return absl::InvalidArgumentError("a tensor's shape is negative or too large");
    }
  }
  return strides;
}

absl::StatusOr<TensorFile> OpenTensorFile(const std::string& path) {
  HANMO_ASSIGN_OR_RETURN(auto file, MappedFile::Open(path));
  auto tensors = absl::EndsWith(path, ".safetensors") ? ParseSafetensors(file->bytes())
                                                      : ParseTorchArchive(file->bytes());
  if (!tensors.ok()) {
    return absl::Status(tensors.status().code(),
                        absl::StrCat(path, ": ", tensors.status().message()));
  }
  return TensorFile{std::move(file), *std::move(tensors)};
}

}  // namespace hanmo
