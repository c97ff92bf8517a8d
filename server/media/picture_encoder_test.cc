#include "server/media/picture_encoder.h"

#include <cmath>
#include <cstring>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "png.h"
#include "turbojpeg.h"
#include "webp/decode.h"
#include "webp/demux.h"

namespace hanmo {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

// Smooth colours with some texture, odd sizes on purpose.
Pixels Painting(uint32_t width, uint32_t height) {
  Pixels pixels{width, height, {}};
  for (uint32_t y = 0; y < height; ++y) {
    for (uint32_t x = 0; x < width; ++x) {
      pixels.rgb.push_back(static_cast<char>(x * 255 / width));
      pixels.rgb.push_back(static_cast<char>(y * 255 / height));
      pixels.rgb.push_back(static_cast<char>(128 + ((x * 7 + y * 13) % 11)));
    }
  }
  return pixels;
}

std::string DecodePng(const std::string& file, uint32_t width, uint32_t height) {
  png_image image = {};
  image.version = PNG_IMAGE_VERSION;
  EXPECT_TRUE(png_image_begin_read_from_memory(&image, file.data(), file.size()));
  EXPECT_EQ(image.width, width);
  EXPECT_EQ(image.height, height);
  image.format = PNG_FORMAT_RGB;
  std::string rgb(PNG_IMAGE_SIZE(image), '\0');
  EXPECT_TRUE(png_image_finish_read(&image, nullptr, rgb.data(), 0, nullptr));
  return rgb;
}

std::string DecodeJpeg(const std::string& file, int width, int height) {
  tjhandle decoder = tjInitDecompress();
  std::string rgb(3 * width * height, '\0');
  EXPECT_EQ(
      tjDecompress2(decoder, reinterpret_cast<const unsigned char*>(file.data()), file.size(),
                    reinterpret_cast<unsigned char*>(rgb.data()), width, 0, height, TJPF_RGB, 0),
      0);
  tjDestroy(decoder);
  return rgb;
}

std::string DecodeWebp(const std::string& file) {
  int width = 0;
  int height = 0;
  uint8_t* bytes =
      WebPDecodeRGB(reinterpret_cast<const uint8_t*>(file.data()), file.size(), &width, &height);
  EXPECT_NE(bytes, nullptr);
  std::string rgb(reinterpret_cast<char*>(bytes), size_t{3} * width * height);
  WebPFree(bytes);
  return rgb;
}

double Psnr(const std::string& a, const std::string& b) {
  EXPECT_EQ(a.size(), b.size());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = static_cast<uint8_t>(a[i]) - static_cast<uint8_t>(b[i]);
    sum += d * d;
  }
  return 10 * std::log10(255 * 255 / (sum / static_cast<double>(a.size()) + 1e-12));
}

TEST(PictureEncoderTest, PngIsLossless) {
  for (auto [width, height] : {std::pair{1u, 1u}, {3u, 200u}, {131u, 67u}}) {
    const Pixels pixels = Painting(width, height);
    auto file = EncodePicture(pixels, {});
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_THAT(*file, StartsWith("\x89PNG"));
    EXPECT_EQ(DecodePng(*file, width, height), pixels.rgb);
  }
}

TEST(PictureEncoderTest, JpegAndWebpDecodeToNearlyTheSame) {
  const Pixels pixels = Painting(131, 67);
  auto jpeg = EncodePicture(pixels, {PictureEncoding::kJpeg, 95});
  ASSERT_TRUE(jpeg.ok()) << jpeg.status();
  EXPECT_GT(Psnr(DecodeJpeg(*jpeg, 131, 67), pixels.rgb), 33);
  auto webp = EncodePicture(pixels, {PictureEncoding::kWebp, 95});
  ASSERT_TRUE(webp.ok()) << webp.status();
  EXPECT_GT(Psnr(DecodeWebp(*webp), pixels.rgb), 33);
}

TEST(PictureEncoderTest, QualityTradesBytes) {
  const Pixels pixels = Painting(256, 256);
  for (PictureEncoding encoding : {PictureEncoding::kJpeg, PictureEncoding::kWebp}) {
    EXPECT_LT(EncodePicture(pixels, {encoding, 20})->size(),
              EncodePicture(pixels, {encoding, 95})->size());
  }
}

TEST(PictureEncoderTest, XmpIsEmbeddedAndTheFileStillDecodes) {
  const Pixels pixels = Painting(40, 30);
  const std::string xmp = "<x:xmpmeta xmlns:x='adobe:ns:meta/'>墨</x:xmpmeta>";
  auto png = EncodePicture(pixels, {PictureEncoding::kPng, 90, xmp});
  EXPECT_THAT(*png, HasSubstr("XML:com.adobe.xmp"));
  EXPECT_THAT(*png, HasSubstr(xmp));
  EXPECT_EQ(DecodePng(*png, 40, 30), pixels.rgb);

  auto plain = EncodePicture(pixels, {PictureEncoding::kJpeg, 90});
  auto jpeg = EncodePicture(pixels, {PictureEncoding::kJpeg, 90, xmp});
  EXPECT_THAT(*jpeg, HasSubstr(xmp));
  EXPECT_EQ(DecodeJpeg(*jpeg, 40, 30), DecodeJpeg(*plain, 40, 30));

  auto webp = EncodePicture(pixels, {PictureEncoding::kWebp, 90, xmp});
  const WebPData data = {reinterpret_cast<const uint8_t*>(webp->data()), webp->size()};
  WebPDemuxer* demuxer = WebPDemux(&data);
  WebPChunkIterator chunk;
  ASSERT_TRUE(WebPDemuxGetChunk(demuxer, "XMP ", 1, &chunk));
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size), xmp);
  WebPDemuxReleaseChunkIterator(&chunk);
  WebPDemuxDelete(demuxer);
  EXPECT_GT(Psnr(DecodeWebp(*webp), pixels.rgb), 28);
}

TEST(PictureEncoderTest, RefusesWhatItCannotEncode) {
  auto refused = [](Pixels pixels, EncodeOptions options) {
    auto file = EncodePicture(pixels, options);
    EXPECT_EQ(file.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(file.status().message());
  };
  EXPECT_THAT(refused({0, 5, ""}, {}), HasSubstr("1 to 16383"));
  EXPECT_THAT(refused({20000, 1, std::string(60000, 'x')}, {}), HasSubstr("20000 x 1"));
  EXPECT_THAT(refused({2, 2, "short"}, {}), HasSubstr("12 bytes, got 5"));
  EXPECT_THAT(refused(Painting(2, 2), {PictureEncoding::kJpeg, 0}), HasSubstr("1 to 100, got 0"));
  EXPECT_THAT(refused(Painting(2, 2), {PictureEncoding::kPng, 90, std::string(70000, 'x')}),
              HasSubstr("at most 65000"));
}

}  // namespace
}  // namespace hanmo
