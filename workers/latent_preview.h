// Small pictures of unfinished latents, at a cost that does not matter: one matrix product.
#ifndef HANMO_WORKERS_LATENT_PREVIEW_H_
#define HANMO_WORKERS_LATENT_PREVIEW_H_

#include <ATen/ATen.h>

#include "server/batcher/sink.h"
#include "workers/models/vae.h"

namespace hanmo {

// A linear map from a latent's channels to RGB, fitted to the model's own VAE at load: flat patches
// of random latents are decoded and the mean colour of each is regressed on its channels (least
// squares). It serves any number of channels, knows no texture, and is exact for a linear VAE.
class LatentPreview {
 public:
  // Decodes one small batch. A VAE whose pictures are not RGB gets no previews (empty Pixels).
  explicit LatentPreview(const Vae& vae, at::Device device);

  // latent [channels, h, w] float32, of about unit noise level -> h x w pixels.
  Pixels Render(const at::Tensor& latent) const;

 private:
  at::Tensor projection_;  // [channels + 1, 3] on the CPU, the last row is the offset
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_LATENT_PREVIEW_H_
