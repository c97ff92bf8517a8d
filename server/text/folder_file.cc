#include "server/text/folder_file.h"

#include <cstdint>
#include <fstream>
#include <system_error>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

// The largest published tokenizer.json are about 35 MB.
constexpr uintmax_t kMaxFileBytes = uintmax_t{256} << 20;

}  // namespace

absl::StatusOr<std::optional<std::string>> ReadFolderFile(const std::filesystem::path& folder,
                                                          const char* name) {
  const std::filesystem::path path = folder / name;
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  if (status.type() == std::filesystem::file_type::not_found) return std::nullopt;
  const auto refuse = [&](absl::string_view why) {
    return absl::InvalidArgumentError(absl::StrCat(path.string(), ": ", why));
  };
  if (!std::filesystem::is_regular_file(status)) return refuse("not a regular file");
  const uintmax_t size = std::filesystem::file_size(path, error);
  if (error) return refuse(error.message());
  if (size > kMaxFileBytes) return refuse("larger than 256 MiB");
  std::string content(size, '\0');
  std::ifstream file(path, std::ios::binary);
  if (!file.read(content.data(), static_cast<std::streamsize>(size))) return refuse("unreadable");
  return content;
}

}  // namespace hanmo
