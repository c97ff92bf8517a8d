// The bytes of a save point. Format, little-endian:
//   u32 magic "HMSP", u32 version, u64 sampler fingerprint, u64 seed, u64 noise draws used,
//   u32 next call, u32 number of history tensors, u32 channels, u32 height, u32 width, u32 zero,
//   then the latent and the history as float32, then u64 Checksum() of all before.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "workers/samplers/sampler.h"

namespace hanmo {

// A fast 64-bit hash that sees every changed bit; no protection against intent.
uint64_t Checksum(absl::string_view bytes);

std::string EncodeSavePoint(uint64_t fingerprint, const SamplerState& state);

// INVALID_ARGUMENT unless `bytes` is what EncodeSavePoint() wrote for this fingerprint and shape.
// Tensors come back on the CPU.
absl::StatusOr<SamplerState> DecodeSavePoint(absl::string_view bytes, uint64_t fingerprint,
                                             const LatentShape& shape);

}  // namespace hanmo
