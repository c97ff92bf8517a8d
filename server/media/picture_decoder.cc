#include "server/media/picture_decoder.h"

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "server/media/picture_reader.h"

namespace hanmo {
namespace {

constexpr absl::string_view kPngSignature("\x89PNG\r\n\x1a\n", 8);
constexpr absl::string_view kJpegSignature("\xff\xd8\xff", 3);
constexpr absl::string_view kExifPrefix("Exif\0\0", 6);
constexpr uint32_t kOrientationTag = 0x0112;
constexpr uint32_t kShort = 3;  // TIFF's type of 16 bits

absl::StatusOr<StoredPicture> ReadPicture(absl::string_view file) {
  if (absl::StartsWith(file, kPngSignature)) return ReadPng(file);
  if (absl::StartsWith(file, kJpegSignature)) return ReadJpeg(file);
  if (absl::StartsWith(file, "RIFF") && file.size() >= 12 && file.substr(8, 4) == "WEBP") {
    return ReadWebp(file);
  }
  return absl::InvalidArgumentError("must be a PNG, JPEG or WebP file");
}

// Orientations 5 to 8 swap the axes; these mirror the one or the other of the stored picture.
Pixels Turned(Pixels stored, uint32_t orientation) {
  if (orientation == 1) return stored;
  const bool swapped = orientation >= 5;
  const bool mirror_x = orientation == 2 || orientation == 3 || orientation >= 7;
  const bool mirror_y =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  Pixels turned{swapped ? stored.height : stored.width, swapped ? stored.width : stored.height, {}};
  turned.rgb.resize(stored.rgb.size());
  char* out = turned.rgb.data();
  for (uint32_t y = 0; y < turned.height; ++y) {
    for (uint32_t x = 0; x < turned.width; ++x, out += 3) {
      uint32_t from_x = swapped ? y : x;
      uint32_t from_y = swapped ? x : y;
      if (mirror_x) from_x = stored.width - 1 - from_x;
      if (mirror_y) from_y = stored.height - 1 - from_y;
      std::memcpy(out, &stored.rgb[(size_t{from_y} * stored.width + from_x) * 3], 3);
    }
  }
  return turned;
}

// Numbers of a TIFF file; 0 beyond its end.
class TiffReader {
 public:
  explicit TiffReader(absl::string_view tiff)
      : tiff_(tiff), big_endian_(absl::StartsWith(tiff, "MM")) {}

  uint32_t Number(size_t place, size_t bytes) const {
    if (place > tiff_.size() || bytes > tiff_.size() - place) return 0;
    uint32_t number = 0;
    for (size_t i = 0; i < bytes; ++i) {
      const size_t at = big_endian_ ? place + i : place + bytes - 1 - i;
      number = number << 8 | static_cast<unsigned char>(tiff_[at]);
    }
    return number;
  }

 private:
  const absl::string_view tiff_;
  const bool big_endian_;
};

}  // namespace

absl::StatusOr<Pixels> DecodePicture(absl::string_view file) {
  if (file.empty()) return absl::InvalidArgumentError("must not be empty");
  if (file.size() > kMaxPictureFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be at most ", kMaxPictureFileBytes, " bytes, got ", file.size()));
  }
  auto stored = ReadPicture(file);
  if (!stored.ok()) return stored.status();
  return Turned(std::move(stored->pixels), stored->orientation);
}

absl::Status CheckPictureSize(uint64_t width, uint64_t height) {
  if (width >= 1 && height >= 1 && width <= kMaxPictureSide && height <= kMaxPictureSide) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("must be at most ", kMaxPictureSide, " x ",
                                                 kMaxPictureSide, " pixels, got ", width, " x ",
                                                 height));
}

void FlattenOnWhite(std::string* rgba) {
  auto* bytes = reinterpret_cast<unsigned char*>(rgba->data());
  const size_t pixels = rgba->size() / 4;
  for (size_t i = 0; i < pixels; ++i) {
    const uint32_t alpha = bytes[4 * i + 3];
    for (size_t c = 0; c < 3; ++c) {
      bytes[3 * i + c] =
          static_cast<unsigned char>((bytes[4 * i + c] * alpha + 255 * (255 - alpha) + 127) / 255);
    }
  }
  rgba->resize(3 * pixels);
}

uint32_t ExifOrientation(absl::string_view exif) {
  exif = absl::StripPrefix(exif, kExifPrefix);
  if (!absl::StartsWith(exif, "II*") && !absl::StartsWith(exif, absl::string_view("MM\0*", 4))) {
    return 1;
  }
  const TiffReader tiff(exif);
  const size_t directory = tiff.Number(4, 4);
  const uint32_t entries = tiff.Number(directory, 2);
  for (uint32_t i = 0; i < entries; ++i) {
    const size_t entry = directory + 2 + size_t{12} * i;
    if (entry >= exif.size()) break;
    if (tiff.Number(entry, 2) != kOrientationTag || tiff.Number(entry + 2, 2) != kShort) continue;
    const uint32_t orientation = tiff.Number(entry + 8, 2);
    return orientation >= 1 && orientation <= 8 ? orientation : 1;
  }
  return 1;
}

}  // namespace hanmo
