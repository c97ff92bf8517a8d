// What lies where in a checkpoint file: the tensors of a safetensors file or of a torch.save
// archive, described without reading or copying their bytes and without libtorch.
#ifndef HANMO_WORKERS_CHECKPOINT_TENSOR_FILE_H_
#define HANMO_WORKERS_CHECKPOINT_TENSOR_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "workers/checkpoint/mapped_file.h"

namespace hanmo {

enum class ElementType {
  kFloat64,
  kFloat32,
  kFloat16,
  kBFloat16,
  kInt64,
  kInt32,
  kInt16,
  kInt8,
  kUint8,
  kBool,
};

size_t ElementSize(ElementType type);  // bytes
absl::string_view ElementTypeName(ElementType type);
// The type that a safetensors header spells "F32", "BF16", "I64" …; nullopt for the others.
std::optional<ElementType> ElementTypeFromSafetensors(absl::string_view name);

// One tensor of a file. Invariants, checked by the parsers below: rank ≤ 16, dimensions and strides
// are not negative, and every element lies within the file.
struct TensorEntry {
  std::string name;
  ElementType type = ElementType::kFloat32;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements
  uint64_t offset = 0;           // of element 0, in bytes from the start of the file

  int64_t elements() const;
  bool contiguous() const;  // row-major without gaps
};

inline constexpr size_t kMaxTensors = 100'000;
inline constexpr size_t kMaxRank = 16;

// Row-major strides of `shape`; INVALID_ARGUMENT above kMaxRank, with a negative dimension, or when
// the number of elements does not fit into int64.
absl::StatusOr<std::vector<int64_t>> ContiguousStrides(absl::Span<const int64_t> shape);

// The tensors of a safetensors file. INVALID_ARGUMENT for everything that is not exactly that: torn
// header or data, overlaps, holes, unknown types.
absl::StatusOr<std::vector<TensorEntry>> ParseSafetensors(absl::Span<const uint8_t> file);

// The tensors of a file written by torch.save (zip format, torch 1.6 and later): a state dict, or a
// training checkpoint with one under "state_dict". Its pickle is interpreted by a machine that
// knows tensors and plain containers only; nothing is imported or executed, and a pickle that asks
// for any other class or function is refused with INVALID_ARGUMENT naming it.
absl::StatusOr<std::vector<TensorEntry>> ParseTorchArchive(absl::Span<const uint8_t> file);

struct TensorFile {
  std::shared_ptr<const MappedFile> file;
  std::vector<TensorEntry> tensors;
};

// Maps `path` and parses it by its name: *.safetensors, everything else as torch archive. Errors
// name the path.
absl::StatusOr<TensorFile> OpenTensorFile(const std::string& path);

}  // namespace hanmo

#endif  // HANMO_WORKERS_CHECKPOINT_TENSOR_FILE_H_
