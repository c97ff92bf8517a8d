// Samplers turn what the UNet predicts into the next latent of one sample. A Sampler is the
// immutable schedule of (checkpoint, sampler, steps) and may be shared; a SamplerState is one
// sample's place in it. The executor asks each row of a batch for its model input, runs the UNet
// once for all rows, applies guidance, and steps row by row, so a row cannot depend on its company.
//
//   state = sampler->Begin(seed, shape, device)
//   while (!sampler->done(state))
//     input = sampler->Input(state)              // latent and timestep for the UNet
//     sampler->Step(prediction, state)
//   picture = vae.Decode(state.latent / scaling_factor)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "workers/samplers/picture_noise.h"
#include "workers/samplers/scheduler_config.h"

namespace hanmo {

// What a Sampler is made from.
struct SamplerRequest {
  // The checkpoint's scheduler/scheduler_config.json, see ParseSchedulerConfig().
  nlohmann::json scheduler_config;
  // "ddim", "pndm", "euler", "euler_a", "dpmpp_2m", "lcm" or "unipc"; empty: the checkpoint's own.
  std::string sampler;
  // The checkpoint's own scheduler class where model_index.json names one; empty: `_class_name`.
  std::string default_class;
  int steps = 50;  // 1 … num_train_timesteps; PNDM makes one model call more
  // Whether StableDiffusionPipeline's overrides apply (clip_sample false, steps_offset 1).
  bool latent_pipeline = true;
};

// What the UNet is given for one row.
struct ModelInput {
  at::Tensor latent;   // [channels, height, width], float32, scaled for the sampler's noise level
  float timestep = 0;  // Euler's may have a fraction
};

// One sample's place in a run. Tensors are float32 whatever the model's dtype, on the device given
// to Begin(), and never written in place, so copies are cheap and independent.
struct SamplerState {
  int next_call = 0;                // index of the next model call
  at::Tensor latent;                // [channels, height, width]
  std::vector<at::Tensor> history;  // of latent's shape; number and meaning are the sampler's
  PictureNoise noise;
};

class Sampler {
 public:
  // INVALID_ARGUMENT names the field: `sampler`, `steps`, or the key of scheduler_config.json.
  static absl::StatusOr<std::shared_ptr<const Sampler>> Create(const SamplerRequest& request);

  virtual ~Sampler() = default;
  Sampler(const Sampler&) = delete;
  Sampler& operator=(const Sampler&) = delete;

  // All methods are const and may be called from several threads for different states.

  SamplerKind kind() const { return kind_; }
  // One per model call, in order of the calls.
  const std::vector<float>& timesteps() const { return timesteps_; }
  int model_calls() const { return static_cast<int>(timesteps_.size()); }
  float init_noise_sigma() const { return init_noise_sigma_; }

  // Draws the initial latent: the seed's first draw times init_noise_sigma.
  SamplerState Begin(uint64_t seed, const LatentShape& shape, at::Device device = at::kCPU) const;
  bool done(const SamplerState& state) const { return state.next_call >= model_calls(); }
  // Requires !done(state).
  ModelInput Input(const SamplerState& state) const;

  // Advances `state` by the UNet's (guided) output for its Input(), any float dtype.
  // INTERNAL when the sample is done or the shape is not the latent's; `state` is then unchanged.
  absl::Status Step(const at::Tensor& model_output, SamplerState& state) const;

  // The save point of `state`: 16 bytes a latent element at most for the usual settings
  // (64 … 256 KiB at 512²), in host memory, little-endian, with a checksum.
  std::string Save(const SamplerState& state) const;
  // The inverse, bit for bit. INVALID_ARGUMENT for bytes that are torn, altered, of another format
  // version, of another sampler (settings or steps) or of another shape.
  absl::StatusOr<SamplerState> Restore(absl::string_view bytes, const LatentShape& shape,
                                       at::Device device = at::kCPU) const;

 protected:
  Sampler(SamplerKind kind, std::vector<float> timesteps, float init_noise_sigma)
      : kind_(kind), timesteps_(std::move(timesteps)), init_noise_sigma_(init_noise_sigma) {}

 private:
  virtual at::Tensor ScaleInput(int call, const at::Tensor& latent) const;
  // The next latent. May replace state.history and draw from state.noise; leaves next_call and
  // latent to the caller. `model_output` is float32 of the latent's shape.
  virtual at::Tensor Advance(const at::Tensor& model_output, SamplerState& state) const = 0;
  // Tensors in SamplerState::history before model call `call`.
  virtual int HistoryLength(int call) const = 0;

  SamplerKind kind_;
  std::vector<float> timesteps_;
  float init_noise_sigma_;
  uint64_t fingerprint_ = 0;  // of the settings; ties a save point to its sampler
};

}  // namespace hanmo
