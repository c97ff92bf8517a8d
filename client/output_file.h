// Where pictures go: names, formats, and files that are whole or not there.
#ifndef HANMO_CLIENT_OUTPUT_FILE_H_
#define HANMO_CLIENT_OUTPUT_FILE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "hanmo/v1/generation.pb.h"

namespace hanmo {

// Which picture a name is for.
struct OutputPlace {
  uint32_t index = 0;
  uint64_t seed = 0;
};

// The file of one of `count` pictures: {index} and {seed} in `pattern` are filled in; without
// either and with several pictures, "-0", "-1" and so on go before the extension.
std::string OutputName(const std::string& pattern, uint32_t count, OutputPlace place);

// By the extension: .png, .jpg, .jpeg, .webp in any case. INVALID_ARGUMENT for any other.
absl::StatusOr<hanmo::v1::PictureFormat> FormatOf(absl::string_view path);

// "png", "jpeg" or "webp"; anything else is PICTURE_FORMAT_UNSPECIFIED, and back to "".
hanmo::v1::PictureFormat FormatNamed(absl::string_view name);
std::string FormatName(hanmo::v1::PictureFormat format);

// Whether a file could be put at `path`: its folder is there and may be written to. Better known
// before the work than after it.
absl::Status CheckWritable(const std::string& path);

// Puts a file with these bytes at `path`, in place of what was there; whoever looks sees the old
// file or the whole new one. On an error nothing is left behind.
absl::Status WriteFile(const std::string& path, absl::string_view bytes);

}  // namespace hanmo

#endif  // HANMO_CLIENT_OUTPUT_FILE_H_
