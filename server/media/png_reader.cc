#include <csetjmp>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "png.h"
#include "server/media/picture_decoder.h"
#include "server/media/picture_reader.h"

namespace hanmo {
namespace {

// Signature, length and name of the first chunk; then width and height.
constexpr size_t kSizeAt = 16;
// Never read: they may unpack to a great deal, and nothing here needs them.
constexpr char kIgnored[] = "iCCP\0iTXt\0tEXt\0zTXt\0sPLT";

// libpng leaves by longjmp, so nothing with a destructor may live in the functions that set one.
class PngReader {
 public:
  explicit PngReader(absl::string_view file) : file_(file) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, Stop, IgnoreWarning);
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  bool ready() const { return info_ != nullptr; }
  const char* error() const { return error_; }
  uint32_t width() const { return png_get_image_width(png_, info_); }
  uint32_t height() const { return png_get_image_height(png_, info_); }
  size_t channels() const { return png_get_channels(png_, info_); }  // 3 or 4

  // False: error() says why.
  bool ReadHeader() {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    png_set_read_fn(png_, this, ReadBytes);
    png_set_user_limits(png_, kMaxPictureSide, kMaxPictureSide);
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER,
                                reinterpret_cast<png_const_bytep>(kIgnored), sizeof(kIgnored) / 5);
    png_read_info(png_, info_);
    png_set_expand(png_);
    png_set_scale_16(png_);
    png_set_gray_to_rgb(png_);
    passes_ = png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }

  // `pixels` has room for all of them.
  bool ReadRows(unsigned char* pixels) {
    if (setjmp(png_jmpbuf(png_)) != 0) return false;
    const uint32_t rows = height();
    const size_t row_bytes = png_get_rowbytes(png_, info_);
    for (int pass = 0; pass < passes_; ++pass) {
      for (uint32_t y = 0; y < rows; ++y) png_read_row(png_, pixels + row_bytes * y, nullptr);
    }
    png_read_end(png_, info_);
    return true;
  }

  uint32_t orientation() const {
    png_uint_32 size = 0;
    png_bytep exif = nullptr;
    if (png_get_eXIf_1(png_, info_, &size, &exif) == 0) return 1;
    return ExifOrientation({reinterpret_cast<const char*>(exif), size});
  }

 private:
  static void ReadBytes(png_structp png, png_bytep out, size_t size) {
    auto* reader = static_cast<PngReader*>(png_get_io_ptr(png));
    if (size > reader->file_.size() - reader->place_) png_error(png, "the file ends early");
    std::memcpy(out, reader->file_.data() + reader->place_, size);
    reader->place_ += size;
  }
  [[noreturn]] static void Stop(png_structp png, png_const_charp message) {
    auto* reader = static_cast<PngReader*>(png_get_error_ptr(png));
    std::strncpy(reader->error_, message, sizeof(reader->error_) - 1);
    png_longjmp(png, 1);
  }
  static void IgnoreWarning(png_structp, png_const_charp) {}

  const absl::string_view file_;
  size_t place_ = 0;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  int passes_ = 1;
  char error_[80] = "";
};

uint32_t BigEndian(absl::string_view bytes) {
  uint32_t number = 0;
  for (const char c : bytes) number = number << 8 | static_cast<unsigned char>(c);
  return number;
}

absl::Status Damaged(const PngReader& reader) {
  return absl::InvalidArgumentError(
      absl::StrCat("is a PNG file that cannot be read: ", reader.error()));
}

}  // namespace

absl::StatusOr<StoredPicture> ReadPng(absl::string_view file) {
  // libpng would say that the header is invalid, not what is wrong with it.
  if (file.size() >= kSizeAt + 8) {
    const auto status = CheckPictureSize(BigEndian(file.substr(kSizeAt, 4)),
                                         BigEndian(file.substr(kSizeAt + 4, 4)));
    if (!status.ok()) return status;
  }
  PngReader reader(file);
  if (!reader.ready()) return absl::ResourceExhaustedError("the PNG reader ran out of memory");
  if (!reader.ReadHeader()) return Damaged(reader);
  StoredPicture picture;
  picture.pixels.width = reader.width();
  picture.pixels.height = reader.height();
  picture.pixels.rgb.resize(reader.channels() * reader.width() * reader.height());
  if (!reader.ReadRows(reinterpret_cast<unsigned char*>(picture.pixels.rgb.data()))) {
    return Damaged(reader);
  }
  if (reader.channels() == 4) FlattenOnWhite(&picture.pixels.rgb);
  picture.orientation = reader.orientation();
  return picture;
}

}  // namespace hanmo
