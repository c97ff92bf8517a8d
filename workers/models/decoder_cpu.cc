#include "workers/models/decoder_cpu.h"

#include <ATen/Parallel.h>

#include <vector>

namespace hanmo {
namespace {

// Rows below this many cost less to prepare than to hand to another thread.
constexpr int64_t kRowGrain = 16;

}  // namespace

DecoderCpu::DecoderCpu(const DecoderFamily& family, const DecoderConfig& config,
                       const WeightScope& weights, CpuIsa isa)
    : TextModel(config.shape),
      config_(config),
      heads_{config.heads, config.kv_heads, config.head_dim},
      parts_(weights.checkpoint().options().dtype, isa) {
  const auto norm = [&](const NormWeights& taken) {
    return parts_.ToFloat(config.norm, config.norm_epsilon, taken.weight, taken.bias);
  };
  const auto head_norm = [&](const at::Tensor& weight) {
    return parts_.ToFloat(NormKind::kRmsNorm, config.norm_epsilon, weight, {});
  };
  const auto pack = [&](const LinearWeights& taken) {
    return parts_.Pack(taken.weight, taken.bias);
  };
  for (int64_t i = 0; i < config.layers; ++i) {
    const DecoderLayerWeights taken = family.take_layer(weights, config, i);
    if (!weights.status().ok()) return;
    Layer& layer = layers_.emplace_back();
    layer.attention_norm = norm(taken.attention_norm);
    layer.mlp_norm = norm(taken.mlp_norm);
    if (config.head_norms) {
      layer.query_norm = head_norm(taken.query_norm);
      layer.key_norm = head_norm(taken.key_norm);
    }
    layer.qkv = pack(taken.qkv);
    layer.attention_out = pack(taken.attention_out);
    layer.mlp_in = pack(taken.mlp_in);
    layer.mlp_out = pack(taken.mlp_out);
  }
  const DecoderOuterWeights outer = family.take_outer(weights, config);
  if (!weights.status().ok()) return;
  embedding_ = parts_.Pack(outer.tokens, {});
  head_ = config.tied_head ? embedding_ : parts_.Pack(outer.head, {});
  if (config.learned_positions) positions_ = outer.positions.to(at::kFloat).contiguous();
  norm_ = norm(outer.norm);
}

DecoderCpu::Batch DecoderCpu::Embed(absl::Span<const TextRow> rows) const {
  Batch batch;
  std::vector<int32_t> tokens, positions;
  for (const TextRow& row : rows) {
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      const auto position = static_cast<int32_t>(row.start + static_cast<int64_t>(i));
      tokens.push_back(row.tokens[i]);
      positions.push_back(position);
      batch.places.Add(row.page_table.data(), position, {{0, position + 1}});
    }
  }
  const int64_t width = config_.width, count = batch.places.tokens();
  batch.residual = at::zeros({count, PaddedColumns(width)}, at::kFloat);
  batch.normed = parts_.Activations(count, width);
  batch.qkv = parts_.Floats(count, config_.qkv_columns());
  batch.attended = parts_.Activations(count, config_.query_columns());
  if (config_.gated) batch.gates = parts_.Floats(count, 2 * config_.inner);
  batch.inner = parts_.Activations(count, config_.inner);
  if (config_.rotates) {
    batch.angles = AnglesAt(at::tensor(positions, at::kInt), config_.rope, config_.head_dim);
  }
  float* residual = batch.residual.data_ptr<float>();
  const float* learned = config_.learned_positions ? positions_.data_ptr<float>() : nullptr;
  at::parallel_for(0, count, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      float* row = residual + t * PaddedColumns(width);
      UnpackOutput(embedding_.packed, tokens[t], row);
      if (learned == nullptr) continue;
      const float* position = learned + positions[t] * width;
      for (int64_t i = 0; i < width; ++i) row[i] += position[i];
    }
  });
  return batch;
}

void DecoderCpu::PrepareHeads(const Layer& layer, Batch& batch) const {
  if (!config_.head_norms && !config_.rotates) return;
  const int64_t dim = config_.head_dim, stride = batch.qkv.size(1);
  float* qkv = batch.qkv.data_ptr<float>();
  const TextKernels& kernels = parts_.kernels();
  const auto normalize = [&](const CpuNorm& norm, float* heads, int64_t count) {
    kernels.rms_norm({.x = heads,
                      .weight = norm.weight.data_ptr<float>(),
                      .output = heads,
                      .columns = dim,
                      .stride = dim,
                      .epsilon = static_cast<float>(norm.epsilon)},
                     0, count);
  };
  RopeCall rope{.pairs = config_.rope.pairs,
                .x = qkv,
                .stride = stride,
                .heads = config_.heads + config_.kv_heads,
                .head_dim = dim};
  if (config_.rotates) {
    rope.cos = batch.angles.cos.data_ptr<float>();
    rope.sin = batch.angles.sin.data_ptr<float>();
  }
  at::parallel_for(0, batch.places.tokens(), kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; config_.head_norms && t < end; ++t) {
      normalize(layer.query_norm, qkv + t * stride, config_.heads);
      normalize(layer.key_norm, qkv + t * stride + config_.query_columns(), config_.kv_heads);
    }
    if (config_.rotates) kernels.rope(rope, begin, end);
  });
}

void DecoderCpu::Mlp(const Layer& layer, Batch& batch) const {
  using Output = LinearCall::Output;
  if (config_.gated) {
    parts_.Multiply(layer.mlp_in, batch.normed, batch.gates, Output::kFloat32);
    parts_.Gate(batch.gates, config_.inner, config_.activation, batch.inner);
  } else {
    parts_.Multiply(layer.mlp_in, batch.normed, batch.inner, Output::kActivations,
                    config_.activation);
  }
  parts_.Multiply(layer.mlp_out, batch.inner, batch.residual, Output::kAddFloat32);
}

TextLogits DecoderCpu::Forward(absl::Span<const TextRow> rows, KvCache& cache) const {
  using Output = LinearCall::Output;
  Batch batch = Embed(rows);
  for (int64_t i = 0; i < config_.layers; ++i) {
    const Layer& layer = layers_[i];
    const CpuAttention attention = {heads_, config_.ScaleOfLayer(i), cache.keys[i],
                                    cache.values[i]};
    parts_.Normalize(batch.residual, layer.attention_norm, batch.normed);
    parts_.Multiply(layer.qkv, batch.normed, batch.qkv, Output::kFloat32);
    PrepareHeads(layer, batch);
    parts_.WriteCache(batch.qkv, batch.places, attention);
    parts_.Attend(batch.qkv, batch.places, attention, batch.attended);
    parts_.Multiply(layer.attention_out, batch.attended, batch.residual, Output::kAddFloat32);
    parts_.Normalize(batch.residual, layer.mlp_norm, batch.normed);
    Mlp(layer, batch);
  }
  TextLogits logits;
  const std::vector<int64_t> wanted = LogitTokens(rows, logits.first);
  const auto count = static_cast<int64_t>(wanted.size());
  const at::Tensor last = batch.residual.index_select(0, at::tensor(wanted, at::kLong));
  at::Tensor normed = parts_.Activations(count, config_.width);
  at::Tensor values = parts_.Floats(count, config_.shape.vocab_size);
  parts_.Normalize(last, norm_, normed);
  parts_.Multiply(head_, normed, values, Output::kFloat32);
  logits.values = values.narrow(1, 0, config_.shape.vocab_size);
  return logits;
}

}  // namespace hanmo
