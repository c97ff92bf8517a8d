// The readers of the three formats, for DecodePicture alone.
#ifndef HANMO_SERVER_MEDIA_PICTURE_READER_H_
#define HANMO_SERVER_MEDIA_PICTURE_READER_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/batcher/sink.h"

namespace hanmo {

// As the file has it; still to be turned.
struct StoredPicture {
  Pixels pixels;
  uint32_t orientation = 1;  // EXIF's, 1 to 8
};

// Each begins with its format's signature. INVALID_ARGUMENT as DecodePicture.
absl::StatusOr<StoredPicture> ReadPng(absl::string_view file);
absl::StatusOr<StoredPicture> ReadJpeg(absl::string_view file);
absl::StatusOr<StoredPicture> ReadWebp(absl::string_view file);

// INVALID_ARGUMENT unless 1 <= each <= kMaxPictureSide.
absl::Status CheckPictureSize(uint64_t width, uint64_t height);

// From RGBA to RGB on white, in place.
void FlattenOnWhite(std::string* rgba);

// The orientation that a TIFF header and its first directory state; 1 where they state none or make
// no sense. "Exif\0\0" may stand before them.
uint32_t ExifOrientation(absl::string_view exif);

}  // namespace hanmo

#endif  // HANMO_SERVER_MEDIA_PICTURE_READER_H_
