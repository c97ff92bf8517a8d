// Resizing of 8-bit RGB pictures, bit for bit as Image.resize with BICUBIC of Pillow 13, on which
// the image processors of published CLIP models are built.
#ifndef HANMO_WORKERS_KERNELS_RESIZE_H_
#define HANMO_WORKERS_KERNELS_RESIZE_H_

#include <cstdint>
#include <vector>

namespace hanmo {

struct PictureSize {
  int64_t width = 0;  // pixels, at least 1
  int64_t height = 0;
};

// rgb: from.height rows of from.width pixels without padding -> the same of size `to`. Where it
// shrinks, the filter widens with the scale (antialiasing). Between the two directions pixels are
// rounded to 8 bits; the vertical one comes first where the height loses more than twice the pixels
// that the width loses.
std::vector<uint8_t> ResizeBicubic(const uint8_t* rgb, PictureSize from, PictureSize to);

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_RESIZE_H_
