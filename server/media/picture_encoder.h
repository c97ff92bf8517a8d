// Turns pixels into PNG, JPEG and WebP files.
#ifndef HANMO_SERVER_MEDIA_PICTURE_ENCODER_H_
#define HANMO_SERVER_MEDIA_PICTURE_ENCODER_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/batcher/sink.h"

namespace hanmo {

enum class PictureEncoding { kPng, kJpeg, kWebp };

struct EncodeOptions {
  PictureEncoding encoding = PictureEncoding::kPng;
  uint32_t quality = 90;  // JPEG and WebP, 1 to 100
  // An XMP packet to embed; empty embeds none. At most 65,000 bytes.
  std::string xmp;
};

// The encoded file. Takes milliseconds and more: not for event threads. INVALID_ARGUMENT when the
// pixels' size does not fit their count or a limit of the format (WebP: 16383 pixels a side);
// RESOURCE_EXHAUSTED when memory runs out.
absl::StatusOr<std::string> EncodePicture(const Pixels& pixels, const EncodeOptions& options);

}  // namespace hanmo

#endif  // HANMO_SERVER_MEDIA_PICTURE_ENCODER_H_
