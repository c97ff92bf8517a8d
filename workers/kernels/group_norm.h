// The two passes of a group norm over pixels whose channels are adjacent. The caller splits the
// pixels into chunks of a fixed length, so that the order of summation depends on neither the
// number of threads nor the batch.
#ifndef HANMO_WORKERS_KERNELS_GROUP_NORM_H_
#define HANMO_WORKERS_KERNELS_GROUP_NORM_H_

#include <cstdint>

namespace hanmo {

// x: `pixels` rows of `channels` values. Adds, for each channel c, the sums over the rows of
// x - origin[c] to sum[c] and of its square to square[c]. An origin near the values keeps the
// variance exact. bfloat16 comes as its bits.
void AddMoments(const float* x, int64_t pixels, int64_t channels, const float* origin, float* sum,
                float* square);
void AddMoments(const uint16_t* x, int64_t pixels, int64_t channels, const float* origin,
                float* sum, float* square);

struct ChannelScale {
  const float* scale;  // one for each channel
  const float* shift;
  bool silu;  // v / (1 + exp(-v)) of the result, within 2 units in the last place
};

// y = x * scale + shift for each channel; y may be x.
void ScaleChannels(const float* x, int64_t pixels, int64_t channels, ChannelScale by, float* y);
void ScaleChannels(const uint16_t* x, int64_t pixels, int64_t channels, ChannelScale by,
                   uint16_t* y);

}  // namespace hanmo

#endif  // HANMO_WORKERS_KERNELS_GROUP_NORM_H_
