#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "server/media/picture_decoder.h"
#include "server/media/picture_resizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto pixels = hanmo::DecodePicture({reinterpret_cast<const char*>(data), size});
  if (!pixels.ok()) return 0;
  if (pixels->width < 1 || pixels->width > hanmo::kMaxPictureSide) std::abort();
  if (pixels->height < 1 || pixels->height > hanmo::kMaxPictureSide) std::abort();
  if (pixels->rgb.size() != size_t{3} * pixels->width * pixels->height) std::abort();
  if (hanmo::FitPicture(*pixels, 8, 16).rgb.size() != 3 * 8 * 16) std::abort();
  return 0;
}
