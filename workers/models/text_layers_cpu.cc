#include "workers/models/text_layers_cpu.h"

#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

namespace hanmo {
namespace {

WeightType WeightTypeOf(at::ScalarType dtype) {
  switch (dtype) {
    case at::kBFloat16:
      return WeightType::kBFloat16;
    case at::kHalf:
      return WeightType::kFloat16;
    default:
      return WeightType::kFloat32;
  }
}

at::Tensor PaddedFloats(const at::Tensor& vector) {
  at::Tensor padded = at::zeros({PaddedColumns(vector.numel())}, at::kFloat);
  padded.narrow(0, 0, vector.numel()).copy_(vector);
  return padded;
}

// Weights are read from end to end for every token: in huge pages, where the system grants them, a
// fifth faster. Only whole huge pages are asked for, so that nothing is rounded up.
at::Tensor AllocateWeights(int64_t bytes) {
  constexpr int64_t kHugePage = 2 << 20;
  if (bytes < kHugePage) return at::empty({bytes}, at::kByte);
  void* data = std::aligned_alloc(kHugePage, static_cast<size_t>(bytes));
  if (data == nullptr) return at::empty({bytes}, at::kByte);  // throws what the caller expects
  madvise(data, static_cast<size_t>(bytes / kHugePage * kHugePage), MADV_HUGEPAGE);
  return at::from_blob(data, {bytes}, [](void* p) { std::free(p); }, at::dtype(at::kByte));
}

// Zeros that take no memory before they are first written.
at::Tensor LazyZeros(at::IntArrayRef sizes, at::ScalarType dtype) {
  const size_t bytes = c10::multiply_integers(sizes) * c10::elementSize(dtype);
  void* data = bytes == 0 ? MAP_FAILED
                          : mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) return at::zeros(sizes, dtype);
  return at::from_blob(data, sizes, [bytes](void* p) { munmap(p, bytes); }, at::dtype(dtype));
}

// Rows below this many cost less to normalise than to hand to another thread.
constexpr int64_t kNormGrain = 16;
constexpr int64_t kAttentionGrain = 8;

}  // namespace

void TokenPlaces::Add(const int32_t* page_table, int32_t slot, absl::Span<const SlotRange> reads) {
  page_tables.push_back(page_table);
  slots.push_back(slot);
  ranges.insert(ranges.end(), reads.begin(), reads.end());
  first_range.push_back(static_cast<int64_t>(ranges.size()));
  int64_t touched = 0;
  for (const SlotRange& range : reads) touched += TouchedSlots(range);
  most_slots = std::max(most_slots, touched);
}

CpuTextLayers::CpuTextLayers(at::ScalarType dtype, CpuIsa isa)
    : type_(WeightTypeOf(dtype)), dtype_(dtype), isa_(isa), kernels_(TextKernelsFor(isa)) {}

CpuMatrix CpuTextLayers::Pack(const at::Tensor& weight, const at::Tensor& bias) const {
  CpuMatrix matrix;
  const int64_t in = weight.size(1), out = weight.size(0);
  matrix.data = AllocateWeights(static_cast<int64_t>(PackedBytes(type_, in, out)));
  matrix.packed = {type_, in, out, matrix.data.data_ptr()};
  const PackSource source{weight.data_ptr(), weight.stride(1), weight.stride(0)};
  at::parallel_for(0, matrix.packed.panels(), 1, [&](int64_t begin, int64_t end) {
    PackPanels(matrix.packed, source, begin, end);
  });
  if (bias.defined()) matrix.bias = PaddedFloats(bias);
  return matrix;
}

CpuNorm CpuTextLayers::ToFloat(NormKind kind, double epsilon, const at::Tensor& weight,
                               const at::Tensor& bias) {
  return {kind, epsilon, weight.to(at::kFloat).contiguous(),
          bias.defined() ? bias.to(at::kFloat).contiguous() : bias};
}

at::Tensor CpuTextLayers::Activations(int64_t rows, int64_t columns) const {
  return at::zeros({rows, PaddedColumns(columns)},
                   ActivationsAreBf16(isa_, type_) ? at::kBFloat16 : at::kFloat);
}

at::Tensor CpuTextLayers::Floats(int64_t rows, int64_t columns) {
  return at::empty({rows, PaddedColumns(columns)}, at::kFloat);
}

void CpuTextLayers::Normalize(const at::Tensor& x, const CpuNorm& norm, at::Tensor& output) const {
  NormalizeAs(type_, x, norm, output);
}

void CpuTextLayers::NormalizeInPlace(at::Tensor& x, const CpuNorm& norm) const {
  NormalizeAs(WeightType::kFloat32, x, norm, x);
}

void CpuTextLayers::NormalizeAs(WeightType type, const at::Tensor& x, const CpuNorm& norm,
                                at::Tensor& output) const {
  const NormCall call{.type = type,
                      .x = x.data_ptr<float>(),
                      .weight = norm.weight.data_ptr<float>(),
                      .bias = norm.bias.defined() ? norm.bias.data_ptr<float>() : nullptr,
                      .output = output.data_ptr(),
                      .columns = norm.weight.numel(),
                      .stride = x.size(1),
                      .epsilon = static_cast<float>(norm.epsilon)};
  const auto kernel = norm.kind == NormKind::kLayerNorm ? kernels_.layer_norm : kernels_.rms_norm;
  at::parallel_for(0, x.size(0), kNormGrain,
                   [&](int64_t begin, int64_t end) { kernel(call, begin, end); });
}

void CpuTextLayers::Multiply(const CpuMatrix& matrix, const at::Tensor& input, at::Tensor& output,
                             LinearCall::Output output_as, TextActivation activation) const {
  const LinearCall call{.weights = matrix.packed,
                        .bias = matrix.bias.defined() ? matrix.bias.data_ptr<float>() : nullptr,
                        .input = input.data_ptr(),
                        .input_stride = input.size(1),
                        .rows = input.size(0),
                        .activation = activation,
                        .output_as = output_as,
                        .output = output.data_ptr(),
                        .output_stride = output.size(1)};
  at::parallel_for(0, matrix.packed.panels(), 1,
                   [&](int64_t begin, int64_t end) { kernels_.linear(call, begin, end); });
}

void CpuTextLayers::Gate(const at::Tensor& x, int64_t columns, TextActivation activation,
                         at::Tensor& output) const {
  const GateCall call{.type = type_,
                      .activation = activation,
                      .x = x.data_ptr<float>(),
                      .x_stride = x.size(1),
                      .columns = columns,
                      .output = output.data_ptr(),
                      .output_stride = output.size(1)};
  at::parallel_for(0, x.size(0), kNormGrain,
                   [&](int64_t begin, int64_t end) { kernels_.gate(call, begin, end); });
}

int64_t CpuTextLayers::PageBytes(int64_t layers, const HeadShape& shape) const {
  return layers * shape.kv_heads * kPageTokens * (shape.head_dim + ValueWidth(shape.head_dim)) *
         static_cast<int64_t>(WeightSize(type_));
}

KvCache CpuTextLayers::MakeCache(int64_t layers, const HeadShape& shape, int64_t pages) const {
  const int64_t heads = shape.kv_heads, dim = shape.head_dim;
  KvCache cache{.pages = pages};
  for (int64_t layer = 0; layer < layers; ++layer) {
    cache.keys.push_back(LazyZeros({pages, heads, dim, kPageTokens}, dtype_));
    // The padding of values is read and must be finite.
    cache.values.push_back(LazyZeros({pages, heads, kPageTokens, ValueWidth(dim)}, dtype_));
  }
  return cache;
}

void CpuTextLayers::WriteCache(const at::Tensor& qkv, const TokenPlaces& places,
                               const CpuAttention& attention) const {
  const HeadShape& shape = attention.shape;
  const at::Tensor &keys = attention.keys, &values = attention.values;
  const int64_t key_bytes = keys.stride(0) * keys.element_size();
  const int64_t value_bytes = values.stride(0) * values.element_size();
  at::parallel_for(0, places.tokens(), kAttentionGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t slot = places.slots[t];
      const int64_t page = places.page_tables[t][slot / kPageTokens];
      const float* key = qkv.data_ptr<float>() + t * qkv.size(1) + shape.heads * shape.head_dim;
      hanmo::WriteCache({.type = type_,
                         .kv_heads = shape.kv_heads,
                         .head_dim = shape.head_dim,
                         .keys = static_cast<char*>(keys.data_ptr()) + page * key_bytes,
                         .values = static_cast<char*>(values.data_ptr()) + page * value_bytes,
                         .slot = slot % kPageTokens},
                        key, key + shape.kv_heads * shape.head_dim);
    }
  });
}

void CpuTextLayers::Attend(const at::Tensor& qkv, const TokenPlaces& places,
                           const CpuAttention& attention, at::Tensor& output) const {
  const HeadShape& shape = attention.shape;
  const AttentionCall call{.type = type_,
                           .heads = shape.heads,
                           .kv_heads = shape.kv_heads,
                           .head_dim = shape.head_dim,
                           .value_width = ValueWidth(shape.head_dim),
                           .scale = static_cast<float>(attention.scale),
                           .query = qkv.data_ptr<float>(),
                           .query_stride = qkv.size(1),
                           .ranges = places.ranges.data(),
                           .first_range = places.first_range.data(),
                           .page_tables = places.page_tables.data(),
                           .keys = attention.keys.data_ptr(),
                           .values = attention.values.data_ptr(),
                           .output = output.data_ptr(),
                           .output_stride = output.size(1)};
  at::parallel_for(
      0, places.tokens() * shape.heads, kAttentionGrain, [&](int64_t begin, int64_t end) {
        std::vector<float> scratch(AttentionScratch(places.most_slots, shape.head_dim));
        kernels_.attention(call, begin, end, scratch.data());
      });
}

}  // namespace hanmo
