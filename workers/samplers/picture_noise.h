// The random numbers of one picture. A seed means the same noise as in diffusers with a
// torch.Generator("cpu") of that seed; nothing else in a picture is random.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace hanmo {

// Shape of one picture in latent space.
struct LatentShape {
  int64_t channels = 0;
  int64_t height = 0;
  int64_t width = 0;
  bool operator==(const LatentShape&) const = default;
};

// A sequence of standard normal draws, each of one latent shape, in float32 whatever the model's
// dtype: diffusers draws in the pipeline's dtype, we keep one picture per seed across dtypes.
// torch's mt19937 uses the low 32 bits of the seed. Not thread-safe; one per sample.
class PictureNoise {
 public:
  PictureNoise() = default;
  // Continues after `draws` draws. The skipped draws are generated only if another one is asked
  // for (about 0.2 ms each at 64 x 64).
  PictureNoise(uint64_t seed, LatentShape shape, uint64_t draws = 0)
      : seed_(seed), shape_(shape), draws_(draws) {}
  // A copy owns its own generator state.
  PictureNoise(const PictureNoise& other);
  PictureNoise& operator=(const PictureNoise& other);
  PictureNoise(PictureNoise&&) = default;
  PictureNoise& operator=(PictureNoise&&) = default;

  // The next draw, [channels, height, width], float32, on the CPU.
  at::Tensor Next();

  uint64_t seed() const { return seed_; }
  const LatentShape& shape() const { return shape_; }
  uint64_t draws() const { return draws_; }

 private:
  at::Tensor Generate();

  uint64_t seed_ = 0;
  LatentShape shape_;
  uint64_t draws_ = 0;       // handed out, or counted as such by the constructor
  uint64_t generated_ = 0;   // what generator_ has produced, at most draws_
  at::Generator generator_;  // undefined until the first Next()
};

}  // namespace hanmo
