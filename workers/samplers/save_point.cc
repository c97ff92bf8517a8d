#include "workers/samplers/save_point.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

static_assert(std::endian::native == std::endian::little, "save points are little-endian");

struct Header {
  uint32_t magic = 0x50534d48;  // "HMSP"
  uint32_t version = 1;
  uint64_t fingerprint = 0;
  uint64_t seed = 0;
  uint64_t draws = 0;
  uint32_t next_call = 0;
  uint32_t history = 0;
  uint32_t channels = 0;
  uint32_t height = 0;
  uint32_t width = 0;
  uint32_t zero = 0;
};
static_assert(sizeof(Header) == 56, "no padding");

void AppendTensor(const at::Tensor& tensor, std::string& bytes) {
  const at::Tensor host = tensor.to(at::kCPU).contiguous();
  bytes.append(static_cast<const char*>(host.const_data_ptr()), host.nbytes());
}

at::Tensor TakeTensor(const LatentShape& shape, absl::string_view& bytes) {
  at::Tensor tensor = at::empty({shape.channels, shape.height, shape.width}, at::kFloat);
  std::memcpy(tensor.mutable_data_ptr(), bytes.data(), tensor.nbytes());
  bytes.remove_prefix(tensor.nbytes());
  return tensor;
}

absl::Status Malformed(absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("save point: ", why));
}

}  // namespace

uint64_t Checksum(absl::string_view bytes) {
  // Each word is folded in by an invertible step, so one changed word always changes the result.
  constexpr uint64_t kOdd = 0x9e3779b97f4a7c15;
  uint64_t hash = bytes.size() * kOdd;
  while (!bytes.empty()) {
    uint64_t word = 0;
    const size_t taken = std::min(bytes.size(), sizeof(word));
    std::memcpy(&word, bytes.data(), taken);
    bytes.remove_prefix(taken);
    hash = std::rotl((hash ^ word) * kOdd, 29);
  }
  return hash;
}

std::string EncodeSavePoint(uint64_t fingerprint, const SamplerState& state) {
  Header header;
  header.fingerprint = fingerprint;
  header.seed = state.noise.seed();
  header.draws = state.noise.draws();
  header.next_call = static_cast<uint32_t>(state.next_call);
  header.history = static_cast<uint32_t>(state.history.size());
  const LatentShape& shape = state.noise.shape();
  header.channels = static_cast<uint32_t>(shape.channels);
  header.height = static_cast<uint32_t>(shape.height);
  header.width = static_cast<uint32_t>(shape.width);
  std::string bytes;
  bytes.reserve(sizeof(header) + state.latent.nbytes() * (1 + state.history.size()) + 8);
  bytes.append(reinterpret_cast<const char*>(&header), sizeof(header));
  AppendTensor(state.latent, bytes);
  for (const at::Tensor& tensor : state.history) AppendTensor(tensor, bytes);
  const uint64_t checksum = Checksum(bytes);
  bytes.append(reinterpret_cast<const char*>(&checksum), sizeof(checksum));
  return bytes;
}

absl::StatusOr<SamplerState> DecodeSavePoint(absl::string_view bytes, uint64_t fingerprint,
                                             const LatentShape& shape) {
  Header header;
  uint64_t checksum = 0;
  if (bytes.size() < sizeof(header) + sizeof(checksum)) return Malformed("too short");
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != Header().magic) return Malformed("not a save point");
  if (header.version != Header().version) return Malformed("unknown format version");
  const absl::string_view body = bytes.substr(0, bytes.size() - sizeof(checksum));
  std::memcpy(&checksum, body.data() + body.size(), sizeof(checksum));
  if (Checksum(body) != checksum) return Malformed("torn or altered");
  if (header.fingerprint != fingerprint) return Malformed("of another sampler");
  const LatentShape saved{header.channels, header.height, header.width};
  if (saved != shape) {
    return Malformed(absl::StrCat("latent is ", saved.channels, "x", saved.height, "x", saved.width,
                                  ", expected ", shape.channels, "x", shape.height, "x",
                                  shape.width));
  }
  const uint64_t tensor_bytes =
      sizeof(float) * static_cast<uint64_t>(shape.channels * shape.height * shape.width);
  if (header.history > 64 || header.zero != 0 || header.next_call > (1u << 30) ||
      body.size() != sizeof(header) + tensor_bytes * (1 + header.history)) {
    return Malformed("length does not fit its header");
  }
  absl::string_view rest = body.substr(sizeof(header));
  SamplerState state;
  state.next_call = static_cast<int>(header.next_call);
  state.latent = TakeTensor(shape, rest);
  for (uint32_t i = 0; i < header.history; ++i) state.history.push_back(TakeTensor(shape, rest));
  state.noise = PictureNoise(header.seed, shape, header.draws);
  return state;
}

}  // namespace hanmo
