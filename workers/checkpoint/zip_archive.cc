// Field offsets are those of PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3.
#include "workers/checkpoint/zip_archive.h"

#include <cstring>
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "workers/checkpoint/status_macros.h"

namespace hanmo {
namespace {

constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50;
constexpr uint32_t kLocator64Signature = 0x07064b50;
constexpr uint32_t kDirectorySignature = 0x02014b50;
constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr uint64_t kEndSize = 22;
constexpr uint64_t kEnd64Size = 56;
constexpr uint64_t kLocator64Size = 20;
constexpr uint64_t kDirectorySize = 46;
constexpr uint64_t kLocalSize = 30;
constexpr uint64_t kMaxComment = 65535;
constexpr uint32_t kIn64 = 0xffffffff;  // "the value is in the zip64 field"
// A state dict has one entry per tensor and a few more.
constexpr uint64_t kMaxEntries = 200'000;

absl::Status Torn(absl::string_view what) {
  return absl::InvalidArgumentError(absl::StrCat("torn or damaged zip archive: ", what));
}

// Little-endian reads; the caller has checked that [at, at + size) is within the file.
template <typename T>
T Read(absl::Span<const uint8_t> file, uint64_t at) {
  T value;
  std::memcpy(&value, file.data() + at, sizeof(value));
  return value;
}

bool Within(uint64_t offset, uint64_t size, uint64_t limit) {
  return offset <= limit && size <= limit - offset;
}

struct Directory {
  uint64_t offset = 0;
  uint64_t size = 0;
  uint64_t entries = 0;
};

std::optional<uint64_t> FindEnd(absl::Span<const uint8_t> file) {
  if (file.size() < kEndSize) return std::nullopt;
  const uint64_t last = file.size() - kEndSize;
  const uint64_t first = last > kMaxComment ? last - kMaxComment : 0;
  for (uint64_t at = last + 1; at-- > first;) {
    if (Read<uint32_t>(file, at) == kEndSignature &&
        at + kEndSize + Read<uint16_t>(file, at + 20) == file.size()) {
      return at;
    }
  }
  return std::nullopt;
}

absl::StatusOr<Directory> FindDirectory(absl::Span<const uint8_t> file) {
  const auto end = FindEnd(file);
  if (!end.has_value()) return Torn("its end is missing");
  Directory directory{Read<uint32_t>(file, *end + 16), Read<uint32_t>(file, *end + 12),
                      Read<uint16_t>(file, *end + 10)};
  const bool has_locator =
      *end >= kLocator64Size && Read<uint32_t>(file, *end - kLocator64Size) == kLocator64Signature;
  if (has_locator) {
    const uint64_t end64 = Read<uint64_t>(file, *end - kLocator64Size + 8);
    if (!Within(end64, kEnd64Size, file.size()) || Read<uint32_t>(file, end64) != kEnd64Signature) {
      return Torn("bad zip64 end");
    }
    directory = {Read<uint64_t>(file, end64 + 48), Read<uint64_t>(file, end64 + 40),
                 Read<uint64_t>(file, end64 + 32)};
  }
  if (!Within(directory.offset, directory.size, file.size()))
    return Torn("directory out of bounds");
  if (directory.entries > kMaxEntries) {
    return absl::InvalidArgumentError(absl::StrCat("zip archive has ", directory.entries,
                                                   " entries, at most ", kMaxEntries, " are read"));
  }
  return directory;
}

// The zip64 field holds, in this order, those of size, compressed size and offset that are kIn64.
struct Sizes {
  uint64_t size = 0;
  uint64_t compressed = 0;
  uint64_t offset = 0;
};

absl::Status ApplyZip64(absl::Span<const uint8_t> extra, Sizes& sizes) {
  uint64_t at = 0;
  while (Within(at, 4, extra.size())) {
    const auto id = Read<uint16_t>(extra, at);
    const uint64_t size = Read<uint16_t>(extra, at + 2);
    at += 4;
    if (!Within(at, size, extra.size())) return Torn("bad extra field");
    if (id == 1) {
      const uint64_t end = at + size;
      for (uint64_t* field : {&sizes.size, &sizes.compressed, &sizes.offset}) {
        if (*field != kIn64) continue;
        if (at + 8 > end) return Torn("short zip64 field");
        *field = Read<uint64_t>(extra, at);
        at += 8;
      }
      return absl::OkStatus();
    }
    at += size;
  }
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ContentOffset(absl::Span<const uint8_t> file, const Sizes& sizes) {
  if (!Within(sizes.offset, kLocalSize, file.size()) ||
      Read<uint32_t>(file, sizes.offset) != kLocalSignature) {
    return Torn("an entry's header is not where the directory says");
  }
  const uint64_t content = sizes.offset + kLocalSize + Read<uint16_t>(file, sizes.offset + 26) +
                           Read<uint16_t>(file, sizes.offset + 28);
  if (!Within(content, sizes.size, file.size())) return Torn("an entry ends after the file");
  return content;
}

}  // namespace

absl::StatusOr<std::vector<ZipEntry>> ListZip(absl::Span<const uint8_t> file) {
  HANMO_ASSIGN_OR_RETURN(const Directory directory, FindDirectory(file));
  const uint64_t end = directory.offset + directory.size;
  std::vector<ZipEntry> entries;
  uint64_t at = directory.offset;
  for (uint64_t i = 0; i < directory.entries; ++i) {
    if (!Within(at, kDirectorySize, end) || Read<uint32_t>(file, at) != kDirectorySignature) {
      return Torn("bad directory entry");
    }
    const uint64_t name_size = Read<uint16_t>(file, at + 28);
    const uint64_t extra_size = Read<uint16_t>(file, at + 30);
    const uint64_t comment_size = Read<uint16_t>(file, at + 32);
    if (!Within(at, kDirectorySize + name_size + extra_size + comment_size, end)) {
      return Torn("bad directory entry");
    }
    const absl::string_view name(reinterpret_cast<const char*>(file.data()) + at + kDirectorySize,
                                 name_size);
    const bool encrypted = (Read<uint16_t>(file, at + 8) & 1) != 0;
    Sizes sizes{Read<uint32_t>(file, at + 24), Read<uint32_t>(file, at + 20),
                Read<uint32_t>(file, at + 42)};
    HANMO_RETURN_IF_ERROR(
        ApplyZip64(file.subspan(at + kDirectorySize + name_size, extra_size), sizes));
    if (Read<uint16_t>(file, at + 10) != 0 || encrypted || sizes.size != sizes.compressed) {
      return absl::InvalidArgumentError("zip entries must be stored, not compressed or encrypted");
    }
    HANMO_ASSIGN_OR_RETURN(const uint64_t content, ContentOffset(file, sizes));
    entries.push_back({name, content, sizes.size});
    at += kDirectorySize + name_size + extra_size + comment_size;
  }
  return entries;
}

}  // namespace hanmo
