#include "workers/models/gpt2_cpu.h"

#include <ATen/Parallel.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

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

Activation KernelActivation(Gpt2Activation activation) {
  switch (activation) {
    case Gpt2Activation::kGeluTanh:
      return Activation::kGeluTanh;
    case Gpt2Activation::kGeluErf:
      return Activation::kGeluErf;
    case Gpt2Activation::kRelu:
      return Activation::kRelu;
    case Gpt2Activation::kSilu:
      return Activation::kSilu;
  }
  return Activation::kNone;
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

Gpt2Cpu::Gpt2Cpu(const Gpt2Config& config, const WeightScope& weights, int64_t weight_bytes,
                 CpuIsa isa)
    : Gpt2(config, weight_bytes),
      type_(WeightTypeOf(weights.checkpoint().options().dtype)),
      dtype_(weights.checkpoint().options().dtype),
      isa_(isa),
      kernels_(TextKernelsFor(isa)) {
  for (int64_t i = 0; i < config.n_layer; ++i) {
    const Gpt2LayerWeights layer = TakeGpt2Layer(weights, config, i);
    if (!weights.status().ok()) return;
    const auto pack = [&](const Gpt2Projection& p) { return Pack(p.weight, 0, p.bias); };
    layers_.push_back({.ln_1 = ToFloat(layer.ln_1),
                       .ln_2 = ToFloat(layer.ln_2),
                       .attention_in = pack(layer.attention_in),
                       .attention_out = pack(layer.attention_out),
                       .mlp_in = pack(layer.mlp_in),
                       .mlp_out = pack(layer.mlp_out)});
  }
  const Gpt2OuterWeights outer = TakeGpt2Outer(weights, config);
  if (!weights.status().ok()) return;
  embedding_ = Pack(outer.tokens, 1, {});
  head_ = config.tie_word_embeddings ? embedding_ : Pack(outer.head, 1, {});
  positions_ = outer.positions.to(at::kFloat).contiguous();
  ln_f_ = ToFloat(outer.ln_f);
}

Gpt2Cpu::Matrix Gpt2Cpu::Pack(const at::Tensor& weight, int64_t input_dimension,
                              const at::Tensor& bias) const {
  Matrix matrix;
  const int64_t in = weight.size(input_dimension), out = weight.size(1 - input_dimension);
  matrix.data = AllocateWeights(static_cast<int64_t>(PackedBytes(type_, in, out)));
  matrix.packed = {type_, in, out, matrix.data.data_ptr()};
  const PackSource source{weight.data_ptr(), weight.stride(input_dimension),
                          weight.stride(1 - input_dimension)};
  at::parallel_for(0, matrix.packed.panels(), 1, [&](int64_t begin, int64_t end) {
    PackPanels(matrix.packed, source, begin, end);
  });
  if (bias.defined()) matrix.bias = PaddedFloats(bias);
  return matrix;
}

Gpt2Cpu::Norm Gpt2Cpu::ToFloat(const Gpt2Norm& norm) {
  return {norm.weight.to(at::kFloat).contiguous(), norm.bias.to(at::kFloat).contiguous()};
}

int64_t Gpt2Cpu::page_bytes() const {
  const int64_t dim = config().head_dim();
  return config().n_layer * config().n_head * kPageTokens * (dim + ValueWidth(dim)) *
         static_cast<int64_t>(WeightSize(type_));
}

Gpt2Cache Gpt2Cpu::MakeCache(int64_t pages) const {
  const int64_t heads = config().n_head, dim = config().head_dim();
  Gpt2Cache cache{.pages = pages};
  for (int64_t layer = 0; layer < config().n_layer; ++layer) {
    cache.keys.push_back(LazyZeros({pages, heads, dim, kPageTokens}, dtype_));
    // The padding of values is read and must be finite.
    cache.values.push_back(LazyZeros({pages, heads, kPageTokens, ValueWidth(dim)}, dtype_));
  }
  return cache;
}

at::Tensor Gpt2Cpu::Activations(int64_t rows, int64_t columns) const {
  return at::zeros({rows, PaddedColumns(columns)},
                   ActivationsAreBf16(isa_, type_) ? at::kBFloat16 : at::kFloat);
}

Gpt2Cpu::Batch Gpt2Cpu::Embed(absl::Span<const Gpt2Row> rows) const {
  Batch batch;
  std::vector<std::pair<int32_t, int64_t>> tokens;  // id, position
  for (const Gpt2Row& row : rows) {
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      const int64_t position = row.start + static_cast<int64_t>(i);
      tokens.emplace_back(row.tokens[i], position);
      batch.contexts.push_back(static_cast<int32_t>(position + 1));
      batch.page_tables.push_back(row.page_table.data());
    }
  }
  const int64_t width = config().n_embd;
  batch.tokens = static_cast<int64_t>(tokens.size());
  batch.residual = at::zeros({batch.tokens, PaddedColumns(width)}, at::kFloat);
  batch.normed = Activations(batch.tokens, width);
  batch.qkv = at::empty({batch.tokens, PaddedColumns(3 * width)}, at::kFloat);
  batch.inner = Activations(batch.tokens, config().n_inner);
  float* residual = batch.residual.data_ptr<float>();
  const float* positions = positions_.data_ptr<float>();
  at::parallel_for(0, batch.tokens, kNormGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = residual + t * PaddedColumns(width);
      UnpackOutput(embedding_.packed, tokens[t].first, row);
      const float* position = positions + tokens[t].second * width;
      for (int64_t i = 0; i < width; ++i) row[i] += position[i];
    }
  });
  return batch;
}

void Gpt2Cpu::Normalize(const at::Tensor& x, const Norm& norm, at::Tensor& output) const {
  const LayerNormCall call{.type = type_,
                           .x = x.data_ptr<float>(),
                           .weight = norm.weight.data_ptr<float>(),
                           .bias = norm.bias.data_ptr<float>(),
                           .output = output.data_ptr(),
                           .columns = config().n_embd,
                           .stride = x.size(1),
                           .epsilon = static_cast<float>(config().layer_norm_epsilon)};
  at::parallel_for(0, x.size(0), kNormGrain,
                   [&](int64_t begin, int64_t end) { kernels_.layer_norm(call, begin, end); });
}

void Gpt2Cpu::Multiply(const Matrix& matrix, const at::Tensor& input, at::Tensor& output,
                       LinearCall::Output output_as, Activation activation) const {
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

void Gpt2Cpu::WriteCacheLayer(const Batch& batch, at::Tensor& keys, at::Tensor& values) const {
  const int64_t width = config().n_embd;
  const int64_t key_bytes = keys.stride(0) * keys.element_size();
  const int64_t value_bytes = values.stride(0) * values.element_size();
  at::parallel_for(0, batch.tokens, kAttentionGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t position = batch.contexts[t] - 1;
      const int64_t page = batch.page_tables[t][position / kPageTokens];
      const float* qkv = batch.qkv.data_ptr<float>() + t * batch.qkv.size(1);
      WriteCache({.type = type_,
                  .heads = config().n_head,
                  .head_dim = config().head_dim(),
                  .keys = static_cast<char*>(keys.data_ptr()) + page * key_bytes,
                  .values = static_cast<char*>(values.data_ptr()) + page * value_bytes,
                  .slot = position % kPageTokens},
                 qkv + width, qkv + 2 * width);
    }
  });
}

void Gpt2Cpu::Attend(Batch& batch, int64_t layer, const Gpt2Cache& cache) const {
  const int64_t dim = config().head_dim();
  const AttentionCall call{.type = type_,
                           .heads = config().n_head,
                           .head_dim = dim,
                           .value_width = ValueWidth(dim),
                           .scale = static_cast<float>(config().AttentionScale(layer)),
                           .query = batch.qkv.data_ptr<float>(),
                           .query_stride = batch.qkv.size(1),
                           .contexts = batch.contexts.data(),
                           .page_tables = batch.page_tables.data(),
                           .keys = cache.keys[layer].data_ptr(),
                           .values = cache.values[layer].data_ptr(),
                           .output = batch.normed.data_ptr(),
                           .output_stride = batch.normed.size(1)};
  const int64_t longest = *std::max_element(batch.contexts.begin(), batch.contexts.end());
  at::parallel_for(0, batch.tokens * config().n_head, kAttentionGrain,
                   [&](int64_t begin, int64_t end) {
                     std::vector<float> scratch(AttentionScratch(longest, dim));
                     kernels_.attention(call, begin, end, scratch.data());
                   });
}

Gpt2Logits Gpt2Cpu::Forward(absl::Span<const Gpt2Row> rows, Gpt2Cache& cache) const {
  using Output = LinearCall::Output;
  Batch batch = Embed(rows);
  const Activation activation = KernelActivation(config().activation);
  for (int64_t i = 0; i < config().n_layer; ++i) {
    const Layer& layer = layers_[i];
    Normalize(batch.residual, layer.ln_1, batch.normed);
    Multiply(layer.attention_in, batch.normed, batch.qkv, Output::kFloat32);
    WriteCacheLayer(batch, cache.keys[i], cache.values[i]);
    Attend(batch, i, cache);
    Multiply(layer.attention_out, batch.normed, batch.residual, Output::kAddFloat32);
    Normalize(batch.residual, layer.ln_2, batch.normed);
    Multiply(layer.mlp_in, batch.normed, batch.inner, Output::kActivations, activation);
    Multiply(layer.mlp_out, batch.inner, batch.residual, Output::kAddFloat32);
  }
  Gpt2Logits logits;
  const std::vector<int64_t> wanted = LogitTokens(rows, logits.first);
  const auto count = static_cast<int64_t>(wanted.size());
  const at::Tensor last = batch.residual.index_select(0, at::tensor(wanted, at::kLong));
  at::Tensor normed = Activations(count, config().n_embd);
  at::Tensor values = at::empty({count, PaddedColumns(config().vocab_size)}, at::kFloat);
  Normalize(last, ln_f_, normed);
  Multiply(head_, normed, values, Output::kFloat32);
  logits.values = values.narrow(1, 0, config().vocab_size);
  return logits;
}

}  // namespace hanmo
