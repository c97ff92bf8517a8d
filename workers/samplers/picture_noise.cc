#include "workers/samplers/picture_noise.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

namespace hanmo {

PictureNoise::PictureNoise(const PictureNoise& other) { *this = other; }

PictureNoise& PictureNoise::operator=(const PictureNoise& other) {
  seed_ = other.seed_;
  shape_ = other.shape_;
  draws_ = other.draws_;
  generated_ = other.generated_;
  generator_ = other.generator_.defined() ? other.generator_.clone() : at::Generator();
  return *this;
}

at::Tensor PictureNoise::Generate() {
  ++generated_;
  // With a batch dimension, as diffusers draws it.
  return at::randn({1, shape_.channels, shape_.height, shape_.width}, generator_,
                   at::TensorOptions().dtype(at::kFloat).device(at::kCPU))
      .squeeze(0);
}

at::Tensor PictureNoise::Next() {
  if (!generator_.defined()) {
    generator_ = at::make_generator<at::CPUGeneratorImpl>(seed_);
    generated_ = 0;
  }
  while (generated_ < draws_) Generate();
  ++draws_;
  return Generate();
}

}  // namespace hanmo
