#include "workers/latent_preview.h"

#include <ATen/CPUGeneratorImpl.h>

#include <string>
#include <vector>

namespace hanmo {
namespace {

// Patches of kPatch x kPatch equal latent pixels, kGrid x kGrid of them a picture: large enough
// that a patch's middle is not coloured by its neighbours, small enough to decode in no time.
constexpr int64_t kPatch = 4;
constexpr int64_t kGrid = 2;
constexpr int64_t kPictures = 8;

// RGB8 rows of colours [h * w, 3] around [-1, 1].
std::string ToBytes(const at::Tensor& colours) {
  const at::Tensor bytes =
      colours.mul(127.5).add(127.5).clamp(0, 255).round().to(at::kByte).contiguous();
  return std::string(reinterpret_cast<const char*>(bytes.data_ptr<uint8_t>()), bytes.numel());
}

}  // namespace

LatentPreview::LatentPreview(const Vae& vae, at::Device device) {
  const VaeTraits& traits = vae.traits();
  if (traits.picture_channels != 3) return;
  at::Generator generator = at::detail::createCPUGenerator(0);
  const int64_t channels = traits.latent_channels;
  const at::Tensor colours_in =
      at::randn({kPictures, channels, kGrid, kGrid}, generator, at::dtype(at::kFloat));
  const at::Tensor latents =
      colours_in.repeat_interleave(kPatch, 2).repeat_interleave(kPatch, 3).to(device);
  // Two at a time, so that loading needs no memory to speak of beside the weights.
  std::vector<at::Tensor> decoded;
  for (const at::Tensor& pair : latents.split(2)) {
    decoded.push_back(vae.Decode(pair).to(at::kCPU, at::kFloat));
  }
  const at::Tensor pictures = at::cat(decoded);
  const int64_t pixels = kPatch * traits.factor;
  // [pictures, 3, grid, pixels, grid, pixels] -> the mean of each patch.
  const at::Tensor means =
      pictures.reshape({kPictures, 3, kGrid, pixels, kGrid, pixels}).mean({3, 5});
  const auto rows = [](const at::Tensor& maps) {
    return maps.permute({0, 2, 3, 1}).reshape({kPictures * kGrid * kGrid, maps.size(1)});
  };
  const at::Tensor inputs =
      at::cat({rows(colours_in), at::ones({kPictures * kGrid * kGrid, 1})}, 1).to(at::kDouble);
  // A ridge far below the data keeps the normal equations solvable whatever the VAE does.
  const at::Tensor normal = inputs.t().mm(inputs) + 1e-6 * at::eye(channels + 1, at::kDouble);
  const at::Tensor right = inputs.t().mm(rows(means).to(at::kDouble));
  projection_ = at::linalg_solve(normal, right).to(at::kFloat);
}

Pixels LatentPreview::Render(const at::Tensor& latent) const {
  if (!projection_.defined()) return {};
  const at::Tensor planes = latent.to(at::kCPU, at::kFloat).flatten(1).t();
  const int64_t channels = planes.size(1);
  const at::Tensor colours =
      planes.mm(projection_.narrow(0, 0, channels)) + projection_.narrow(0, channels, 1);
  return {static_cast<uint32_t>(latent.size(2)), static_cast<uint32_t>(latent.size(1)),
          ToBytes(colours)};
}

}  // namespace hanmo
