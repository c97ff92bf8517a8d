// torch.save's zip format: <root>/data.pkl describes the objects, <root>/data/<key> holds the bytes
// of one storage each.
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "workers/checkpoint/pickle.h"
#include "workers/checkpoint/status_macros.h"
#include "workers/checkpoint/tensor_file.h"
#include "workers/checkpoint/zip_archive.h"

namespace hanmo {
namespace {

using Kind = PickleValue::Kind;
using EntryByName = absl::flat_hash_map<absl::string_view, ZipEntry>;

constexpr absl::string_view kPickleName = "/data.pkl";

absl::Status BadTensor(absl::string_view name, absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": ", what));
}

// Bytes that start an old torch.save file (before torch 1.6): the pickled number 0x1950a86a20f9…
bool IsLegacyFormat(absl::Span<const uint8_t> file) {
  constexpr absl::string_view kMagic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";
  return absl::StartsWith({reinterpret_cast<const char*>(file.data()), file.size()}, kMagic);
}

absl::StatusOr<std::string> FindRoot(const std::vector<ZipEntry>& entries) {
  std::string root;
  for (const ZipEntry& entry : entries) {
    if (!absl::EndsWith(entry.name, kPickleName)) continue;
    if (!root.empty()) return absl::InvalidArgumentError("more than one data.pkl in the archive");
    root = std::string(entry.name.substr(0, entry.name.size() - kPickleName.size()));
  }
  if (root.empty()) {
    return absl::InvalidArgumentError("no data.pkl in the archive: not written by torch.save");
  }
  return root;
}

// Overflow-safe: is first + Σ (dim - 1) × stride below `limit`?
bool LastElementWithin(const PickleValue& tensor, int64_t limit) {
  int64_t last = tensor.integer;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    int64_t span = 0;
    if (__builtin_mul_overflow(tensor.shape[i] - 1, tensor.strides[i], &span) ||
        __builtin_add_overflow(last, span, &last)) {
      return false;
    }
  }
  return last < limit;
}

absl::StatusOr<TensorEntry> EntryOf(absl::string_view name, const PickleValue& tensor,
                                    const EntryByName& files, const std::string& root) {
  const PickleValue& storage = *tensor.items[0];
  const auto file = files.find(absl::StrCat(root, "/data/", storage.text));
  if (file == files.end()) {
    return BadTensor(name, absl::StrCat("its storage ", absl::CHexEscape(storage.text),
                                        " is not in the archive"));
  }
  const uint64_t element = ElementSize(storage.type);
  if (static_cast<uint64_t>(storage.integer) > file->second.size / element) {
    return BadTensor(
        name, absl::StrCat("its storage has ", file->second.size, " bytes for ", storage.integer,
                           " elements of ", ElementTypeName(storage.type)));
  }
  TensorEntry entry;
  entry.name = std::string(name);
  entry.type = storage.type;
  entry.shape = tensor.shape;
  entry.strides = tensor.strides;
  auto sizes = ContiguousStrides(entry.shape);
  if (!sizes.ok()) return BadTensor(name, sizes.status().message());
  if (entry.elements() == 0) {
    entry.offset = file->second.offset;
    return entry;
  }
  if (!LastElementWithin(tensor, storage.integer)) {
    return BadTensor(name, "its shape reaches beyond its storage");
  }
  entry.offset = file->second.offset + static_cast<uint64_t>(tensor.integer) * element;
  return entry;
}

const PickleValue* StateDict(const PickleValue& root) {
  const auto& items = root.items;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    const bool nested = items[i]->kind == Kind::kText && items[i]->text == "state_dict" &&
                        items[i + 1]->kind == Kind::kDict;
    if (nested) return items[i + 1];
  }
  return &root;
}

}  // namespace

absl::StatusOr<std::vector<TensorEntry>> ParseTorchArchive(absl::Span<const uint8_t> file) {
  if (IsLegacyFormat(file)) {
    return absl::InvalidArgumentError(
        "written in the format of torch before 1.6; load and save it again with a newer torch");
  }
  HANMO_ASSIGN_OR_RETURN(const std::vector<ZipEntry> entries, ListZip(file));
  HANMO_ASSIGN_OR_RETURN(const std::string root, FindRoot(entries));
  EntryByName files;
  for (const ZipEntry& entry : entries) files.emplace(entry.name, entry);
  if (const auto order = files.find(absl::StrCat(root, "/byteorder"));
      order != files.end() && order->second.size > 0 && file[order->second.offset] != 'l') {
    return absl::InvalidArgumentError("the archive's byte order is not little-endian");
  }
  const ZipEntry& pickled = files.at(absl::StrCat(root, kPickleName));
  HANMO_ASSIGN_OR_RETURN(const Pickle pickle,
                         ReadPickle(file.subspan(pickled.offset, pickled.size)));
  if (pickle.root->kind != Kind::kDict) {
    return absl::InvalidArgumentError("the archive holds no dict of tensors");
  }
  const auto& items = StateDict(*pickle.root)->items;
  std::vector<TensorEntry> tensors;
  for (size_t i = 0; i + 1 < items.size(); i += 2) {
    if (items[i]->kind != Kind::kText || items[i + 1]->kind != Kind::kTensor) continue;
    if (tensors.size() == kMaxTensors) {
      return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTensors, " tensors"));
    }
    HANMO_ASSIGN_OR_RETURN(auto entry, EntryOf(items[i]->text, *items[i + 1], files, root));
    tensors.push_back(std::move(entry));
  }
  return tensors;
}

}  // namespace hanmo
