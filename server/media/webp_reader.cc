#include <cstring>
#include <memory>
#include <utility>

#include "server/media/picture_reader.h"
#include "webp/decode.h"
#include "webp/demux.h"

namespace hanmo {
namespace {

absl::Status Damaged(const char* what) {
  return absl::InvalidArgumentError(std::string("is a WebP file that cannot be read: ") + what);
}

uint32_t Orientation(const WebPDemuxer* demuxer) {
  WebPChunkIterator chunk = {};
  uint32_t orientation = 1;
  if (WebPDemuxGetChunk(demuxer, "EXIF", 1, &chunk) != 0) {
    orientation =
        ExifOrientation({reinterpret_cast<const char*>(chunk.chunk.bytes), chunk.chunk.size});
  }
  WebPDemuxReleaseChunkIterator(&chunk);
  return orientation;
}

absl::StatusOr<std::string> DecodeFrame(const WebPIterator& frame) {
  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0) return Damaged("the library is of another version");
  std::string rgba(size_t{4} * frame.width * frame.height, '\0');
  config.output.colorspace = MODE_RGBA;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {reinterpret_cast<uint8_t*>(rgba.data()), 4 * frame.width, rgba.size()};
  const VP8StatusCode status = WebPDecode(frame.fragment.bytes, frame.fragment.size, &config);
  WebPFreeDecBuffer(&config.output);
  if (status == VP8_STATUS_OUT_OF_MEMORY) {
    return absl::ResourceExhaustedError("the WebP reader ran out of memory");
  }
  if (status == VP8_STATUS_NOT_ENOUGH_DATA || status == VP8_STATUS_SUSPENDED) {
    return Damaged("the file ends early");
  }
  if (status != VP8_STATUS_OK) return Damaged("its data are damaged");
  FlattenOnWhite(&rgba);
  return rgba;
}

// A frame that is smaller than its picture leaves white around it.
Pixels OnCanvas(const WebPIterator& frame, std::string rgb, uint32_t width, uint32_t height) {
  Pixels canvas{width, height, std::move(rgb)};
  const auto frame_width = static_cast<uint32_t>(frame.width);
  const auto frame_height = static_cast<uint32_t>(frame.height);
  if (frame_width == width && frame_height == height) return canvas;
  const std::string part =
      std::exchange(canvas.rgb, std::string(size_t{3} * width * height, '\xff'));
  for (uint32_t y = 0; y < frame_height; ++y) {
    const size_t at = size_t{width} * (frame.y_offset + y) + frame.x_offset;
    std::memcpy(&canvas.rgb[3 * at], &part[size_t{3} * frame_width * y], size_t{3} * frame_width);
  }
  return canvas;
}

}  // namespace

absl::StatusOr<StoredPicture> ReadWebp(absl::string_view file) {
  const WebPData data = {reinterpret_cast<const uint8_t*>(file.data()), file.size()};
  WebPDemuxState state = WEBP_DEMUX_PARSE_ERROR;
  const std::unique_ptr<WebPDemuxer, void (*)(WebPDemuxer*)> demuxer(
      WebPDemuxPartial(&data, &state), WebPDemuxDelete);
  if (demuxer == nullptr || state == WEBP_DEMUX_PARSE_ERROR) return Damaged("its parts do not fit");
  if (state == WEBP_DEMUX_PARSING_HEADER) return Damaged("the file ends early");
  const uint32_t width = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_WIDTH);
  const uint32_t height = WebPDemuxGetI(demuxer.get(), WEBP_FF_CANVAS_HEIGHT);
  if (auto status = CheckPictureSize(width, height); !status.ok()) return status;
  if (state != WEBP_DEMUX_DONE) return Damaged("the file ends early");

  WebPIterator frame = {};
  const bool found = WebPDemuxGetFrame(demuxer.get(), 1, &frame) != 0;
  const std::unique_ptr<WebPIterator, void (*)(WebPIterator*)> owned(&frame,
                                                                     WebPDemuxReleaseIterator);
  if (!found || frame.width < 1 || frame.height < 1 || frame.x_offset < 0 || frame.y_offset < 0 ||
      uint64_t{width} < uint64_t{0} + frame.x_offset + frame.width ||
      uint64_t{height} < uint64_t{0} + frame.y_offset + frame.height) {
    return Damaged("its parts do not fit");
  }
  auto rgb = DecodeFrame(frame);
  if (!rgb.ok()) return rgb.status();
  return StoredPicture{OnCanvas(frame, *std::move(rgb), width, height), Orientation(demuxer.get())};
}

}  // namespace hanmo
