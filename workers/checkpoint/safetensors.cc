// The header is checked by the safetensors crate (the reference implementation) behind the bridge;
// here its answer becomes TensorEntry values within our own, narrower limits.
#include <limits>
#include <string>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "bridge/hanmo_bridge.h"
#include "workers/checkpoint/tensor_file.h"

namespace hanmo {
namespace {

struct Visit {
  size_t file_size = 0;
  std::vector<TensorEntry> tensors;
  absl::Status status;
};

absl::StatusOr<TensorEntry> EntryOf(absl::string_view name, absl::string_view dtype,
                                    absl::Span<const uint64_t> shape) {
  TensorEntry entry;
  entry.name = std::string(name);
  const auto type = ElementTypeFromSafetensors(dtype);
  if (!type.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, " has the element type ", dtype, ", which is not supported"));
  }
  entry.type = *type;
  for (uint64_t dim : shape) {
    if (dim > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": dimension too large"));
    }
    entry.shape.push_back(static_cast<int64_t>(dim));
  }
  auto strides = ContiguousStrides(entry.shape);
  if (!strides.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor ", name, ": ", strides.status().message()));
  }
  entry.strides = *std::move(strides);
  return entry;
}

void OnTensor(void* ctx, const char* name, size_t name_len, const char* dtype,
              const uint64_t* shape, size_t rank, uint64_t begin, uint64_t end) {
  auto& visit = *static_cast<Visit*>(ctx);
  if (!visit.status.ok()) return;
  if (visit.tensors.size() >= kMaxTensors) {
    visit.status = absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTensors, " tensors"));
    return;
  }
  auto entry = EntryOf({name, name_len}, dtype, {shape, rank});
  if (!entry.ok()) {
    visit.status = entry.status();
    return;
  }
  // The crate promises both; an error here costs nothing and guards every later read.
  const uint64_t bytes = static_cast<uint64_t>(entry->elements()) * ElementSize(entry->type);
  if (begin > end || end > visit.file_size || end - begin != bytes) {
    visit.status = absl::InvalidArgumentError(absl::StrCat(
        "tensor ", entry->name, ": bytes ", begin, " to ", end, " do not hold its shape"));
    return;
  }
  entry->offset = begin;
  visit.tensors.push_back(*std::move(entry));
}

}  // namespace

absl::StatusOr<std::vector<TensorEntry>> ParseSafetensors(absl::Span<const uint8_t> file) {
  Visit visit;
  visit.file_size = file.size();
  char* error = nullptr;
  if (hanmo_safetensors_parse(file.data(), file.size(), OnTensor, &visit, &error) != 0) {
    absl::Cleanup free_error = [error] { hanmo_bridge_free_string(error); };
    return absl::InvalidArgumentError(
        absl::StrCat("not a whole safetensors file: ", error == nullptr ? "out of memory" : error));
  }
  if (!visit.status.ok()) return visit.status;
  return std::move(visit.tensors);
}

}  // namespace hanmo
