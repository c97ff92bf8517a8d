// Reads the small text files of a checkpoint folder.
#ifndef HANMO_SERVER_TEXT_FOLDER_FILE_H_
#define HANMO_SERVER_TEXT_FOLDER_FILE_H_

#include <filesystem>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace hanmo {

// The whole of folder/name, where `name` is a plain file name that we chose (never one from a file
// or a request). Nullopt if there is none; INVALID_ARGUMENT if it is not a regular file, cannot be
// read or is larger than 256 MiB. Links are followed: model caches are made of them.
absl::StatusOr<std::optional<std::string>> ReadFolderFile(const std::filesystem::path& folder,
                                                          const char* name);

}  // namespace hanmo

#endif  // HANMO_SERVER_TEXT_FOLDER_FILE_H_
