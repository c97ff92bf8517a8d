// Brings a picture to the size that a model reads.
#ifndef HANMO_SERVER_MEDIA_PICTURE_RESIZER_H_
#define HANMO_SERVER_MEDIA_PICTURE_RESIZER_H_

#include <cstdint>

#include "server/batcher/sink.h"

namespace hanmo {

// Cuts the middle of `pixels` out, as large as the shape of width x height allows, and makes it so
// large by bicubic interpolation, smoothed where it shrinks: as Pillow's resize with BICUBIC,
// within a level. A part that has that size already is returned as it is. All sizes are at least 1.
Pixels FitPicture(const Pixels& pixels, uint32_t width, uint32_t height);

}  // namespace hanmo

#endif  // HANMO_SERVER_MEDIA_PICTURE_RESIZER_H_
