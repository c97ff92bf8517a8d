#include "client/output_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace hanmo {
namespace {

using hanmo::v1::PictureFormat;

constexpr std::array<std::pair<const char*, PictureFormat>, 4> kFormats = {{
    {"png", hanmo::v1::PICTURE_FORMAT_PNG},
    {"jpeg", hanmo::v1::PICTURE_FORMAT_JPEG},
    {"webp", hanmo::v1::PICTURE_FORMAT_WEBP},
    {"jpg", hanmo::v1::PICTURE_FORMAT_JPEG},
}};

std::string Folder(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  return folder.empty() ? "." : folder;
}

absl::Status WriteAll(int file, absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::ErrnoToStatus(errno, "cannot write");
    bytes.remove_prefix(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

// What open(2) would have given a new file.
mode_t NewFileMode() {
  const mode_t mask = umask(0);
  umask(mask);
  return 0666 & ~mask;
}

// What a link names, which may not exist yet: that is replaced and not the link.
std::string LinkTarget(const std::string& path) {
  constexpr int kMaxLinks = 40;  // the kernel's own limit
  std::filesystem::path target(path);
  std::error_code error;
  for (int i = 0; i < kMaxLinks && std::filesystem::is_symlink(target, error); ++i) {
    target = target.parent_path() / std::filesystem::read_symlink(target, error);
  }
  return target.string();
}

// Or a pipe: written to as it is; a rename would put a file in its place.
bool IsDevice(const std::string& path) {
  std::error_code error;
  const auto type = std::filesystem::status(path, error).type();
  return type == std::filesystem::file_type::character || type == std::filesystem::file_type::fifo;
}

absl::Status WriteThrough(const std::string& path, absl::string_view bytes) {
  const int file = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (file < 0) return absl::ErrnoToStatus(errno, path);
  const absl::Status status = WriteAll(file, bytes);
  close(file);
  if (!status.ok()) return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  return absl::OkStatus();
}

absl::Status Replace(const std::string& path, absl::string_view bytes) {
  // In the same folder, because only there a rename is atomic.
  std::string temporary = absl::StrCat(Folder(path), "/.hanmo-XXXXXX");
  const int file = mkostemp(temporary.data(), O_CLOEXEC);
  if (file < 0) return absl::ErrnoToStatus(errno, path);
  absl::Cleanup remove = [&temporary] { unlink(temporary.c_str()); };
  absl::Status status = WriteAll(file, bytes);
  if (status.ok() && fchmod(file, NewFileMode()) != 0) status = absl::ErrnoToStatus(errno, "chmod");
  // Else the name may reach the disk before the bytes do. Some file systems have no fsync.
  if (status.ok() && fsync(file) != 0 && errno != EINVAL) {
    status = absl::ErrnoToStatus(errno, "cannot write");
  }
  if (close(file) != 0 && status.ok()) status = absl::ErrnoToStatus(errno, "cannot write");
  if (status.ok() && rename(temporary.c_str(), path.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, "cannot rename");
  }
  if (!status.ok()) return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
  std::move(remove).Cancel();
  return absl::OkStatus();
}

}  // namespace

std::string OutputName(const std::string& pattern, uint32_t count, OutputPlace place) {
  const bool told = absl::StrContains(pattern, "{index}") || absl::StrContains(pattern, "{seed}");
  if (told || count <= 1) {
    return absl::StrReplaceAll(
        pattern, {{"{index}", absl::StrCat(place.index)}, {"{seed}", absl::StrCat(place.seed)}});
  }
  const std::filesystem::path path(pattern);
  std::filesystem::path name = path.stem();
  name += absl::StrCat("-", place.index);
  name += path.extension();
  return (path.parent_path() / name).string();
}

absl::StatusOr<PictureFormat> FormatOf(absl::string_view path) {
  const std::string extension =
      absl::AsciiStrToLower(std::filesystem::path(std::string(path)).extension().string());
  for (const auto& [name, format] : kFormats) {
    if (extension == absl::StrCat(".", name)) return format;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("must end in .png, .jpg, .jpeg or .webp, got \"", path, "\""));
}

PictureFormat FormatNamed(absl::string_view name) {
  const auto found = std::find_if(kFormats.begin(), kFormats.end(),
                                  [name](const auto& entry) { return entry.first == name; });
  return found == kFormats.end() ? hanmo::v1::PICTURE_FORMAT_UNSPECIFIED : found->second;
}

std::string FormatName(PictureFormat format) {
  const auto found = std::find_if(kFormats.begin(), kFormats.end(),
                                  [format](const auto& entry) { return entry.second == format; });
  return found == kFormats.end() ? "" : found->first;
}

absl::Status CheckWritable(const std::string& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": is a folder"));
  }
  const std::string written = IsDevice(path) ? path : Folder(path);
  if (access(written.c_str(), W_OK) != 0) return absl::ErrnoToStatus(errno, path);
  return absl::OkStatus();
}

absl::Status WriteFile(const std::string& path, absl::string_view bytes) {
  if (IsDevice(path)) return WriteThrough(path, bytes);
  return Replace(LinkTarget(path), bytes);
}

}  // namespace hanmo
