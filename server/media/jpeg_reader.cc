#include <csetjmp>
#include <cstdio>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "jerror.h"
#include "jpeglib.h"
#include "server/media/picture_reader.h"

namespace hanmo {
namespace {

// Progressive files have about ten; each costs a pass over the whole picture, however little of the
// file it takes.
constexpr int kMaxScans = 100;

// libjpeg leaves by longjmp, so nothing with a destructor may live in the functions that set one.
class JpegReader {
 public:
  explicit JpegReader(absl::string_view file) : file_(file) {
    jpeg_.err = jpeg_std_error(&errors_.manager);
    errors_.manager.error_exit = Stop;
    errors_.manager.emit_message = StopAtDamage;
    progress_.progress_monitor = CountScans;
  }
  ~JpegReader() { jpeg_destroy_decompress(&jpeg_); }
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  uint32_t width() const { return jpeg_.image_width; }
  uint32_t height() const { return jpeg_.image_height; }

  // What went wrong, once a function has returned false.
  absl::Status error() const {
    if (errors_.manager.msg_code == JERR_OUT_OF_MEMORY) {
      return absl::ResourceExhaustedError("the JPEG reader ran out of memory");
    }
    return absl::InvalidArgumentError(
        absl::StrCat("is a JPEG file that cannot be read: ", errors_.message));
  }

  bool ReadHeader() {
    if (setjmp(errors_.escape) != 0) return false;
    jpeg_create_decompress(&jpeg_);
    jpeg_.progress = &progress_;
    jpeg_mem_src(&jpeg_, reinterpret_cast<const unsigned char*>(file_.data()), file_.size());
    jpeg_save_markers(&jpeg_, JPEG_APP0 + 1, 0xFFFF);
    jpeg_read_header(&jpeg_, TRUE);
    switch (jpeg_.jpeg_color_space) {
      case JCS_GRAYSCALE:
      case JCS_YCbCr:
      case JCS_RGB:
        jpeg_.out_color_space = JCS_RGB;
        return true;
      case JCS_CMYK:
      case JCS_YCCK:
        jpeg_.out_color_space = JCS_CMYK;
        return true;
      default:
        ERREXIT(&jpeg_, JERR_CONVERSION_NOTIMPL);
    }
    return false;
  }

  // `rgb` has room for all pixels.
  bool ReadRows(unsigned char* rgb) {
    if (setjmp(errors_.escape) != 0) return false;
    jpeg_start_decompress(&jpeg_);
    const size_t row_bytes = size_t{3} * jpeg_.output_width;
    if (jpeg_.out_color_space == JCS_RGB) {
      while (jpeg_.output_scanline < jpeg_.output_height) {
        JSAMPROW row = rgb + row_bytes * jpeg_.output_scanline;
        jpeg_read_scanlines(&jpeg_, &row, 1);
      }
      return true;
    }
    JSAMPARRAY inks = jpeg_.mem->alloc_sarray(reinterpret_cast<j_common_ptr>(&jpeg_), JPOOL_IMAGE,
                                              4 * jpeg_.output_width, 1);
    while (jpeg_.output_scanline < jpeg_.output_height) {
      unsigned char* row = rgb + row_bytes * jpeg_.output_scanline;
      jpeg_read_scanlines(&jpeg_, inks, 1);
      FromInks(inks[0], row);
    }
    return true;
  }

  uint32_t orientation() const {
    for (auto marker = jpeg_.marker_list; marker != nullptr; marker = marker->next) {
      const absl::string_view data(reinterpret_cast<const char*>(marker->data),
                                   marker->data_length);
      if (absl::StartsWith(data, "Exif")) return ExifOrientation(data);
    }
    return 1;
  }

 private:
  struct Errors {
    jpeg_error_mgr manager;  // first, so that a pointer to it is one to all
    jmp_buf escape;
    char message[JMSG_LENGTH_MAX];
  };

  [[noreturn]] static void Stop(j_common_ptr jpeg) {
    auto* errors = reinterpret_cast<Errors*>(jpeg->err);
    errors->manager.format_message(jpeg, errors->message);
    longjmp(errors->escape, 1);
  }

  // libjpeg paints gray what is missing and guesses what is damaged. Its other warnings harm no
  // pixel.
  static void StopAtDamage(j_common_ptr jpeg, int level) {
    if (level >= 0) return;
    switch (jpeg->err->msg_code) {
      case JWRN_JPEG_EOF:
      case JWRN_HIT_MARKER:
      case JWRN_HUFF_BAD_CODE:
      case JWRN_MUST_RESYNC:
        Stop(jpeg);
      default:
        return;
    }
  }

  static void CountScans(j_common_ptr jpeg) {
    if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number <= kMaxScans) return;
    auto* errors = reinterpret_cast<Errors*>(jpeg->err);
    std::snprintf(errors->message, sizeof(errors->message), "it has more than %d scans", kMaxScans);
    longjmp(errors->escape, 1);
  }

  // Four inks, stored inverted as everybody does since Adobe did.
  void FromInks(const unsigned char* inks, unsigned char* rgb) const {
    for (uint32_t x = 0; x < jpeg_.output_width; ++x, inks += 4, rgb += 3) {
      for (int c = 0; c < 3; ++c) {
        rgb[c] = static_cast<unsigned char>((inks[c] * inks[3] + 127) / 255);
      }
    }
  }

  const absl::string_view file_;
  jpeg_decompress_struct jpeg_ = {};
  jpeg_progress_mgr progress_ = {};
  Errors errors_ = {};
};

}  // namespace

absl::StatusOr<StoredPicture> ReadJpeg(absl::string_view file) {
  JpegReader reader(file);
  if (!reader.ReadHeader()) return reader.error();
  if (auto status = CheckPictureSize(reader.width(), reader.height()); !status.ok()) return status;
  StoredPicture picture;
  picture.pixels.width = reader.width();
  picture.pixels.height = reader.height();
  picture.pixels.rgb.resize(size_t{3} * reader.width() * reader.height());
  if (!reader.ReadRows(reinterpret_cast<unsigned char*>(picture.pixels.rgb.data()))) {
    return reader.error();
  }
  picture.orientation = reader.orientation();
  return picture;
}

}  // namespace hanmo
