// Turns PNG, JPEG and WebP files, which may come from anybody, into pixels.
#ifndef HANMO_SERVER_MEDIA_PICTURE_DECODER_H_
#define HANMO_SERVER_MEDIA_PICTURE_DECODER_H_

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/batcher/sink.h"

namespace hanmo {

inline constexpr size_t kMaxPictureFileBytes = 16 << 20;
inline constexpr uint32_t kMaxPictureSide = 4096;  // pixels

// The picture as a viewer shows it: turned as EXIF says, transparent parts on white, of an
// animation the first frame. Colours are taken as they are: ICC profiles and gamma are not applied.
//
// The size is read from the header before anything is allocated for it; a picture takes at most
// some 200 MiB meanwhile. May take a second: not for event threads. INVALID_ARGUMENT says what is
// wrong with the file (too large, none of the three, cut off, damaged), in words that follow the
// name of a field; RESOURCE_EXHAUSTED when memory runs out.
absl::StatusOr<Pixels> DecodePicture(absl::string_view file);

}  // namespace hanmo

#endif  // HANMO_SERVER_MEDIA_PICTURE_DECODER_H_
