#include "workers/models/ernie_vilg_cpu.h"

#include <algorithm>
#include <cmath>

namespace hanmo {

using Output = LinearCall::Output;

ErnieVilgCpu::ErnieVilgCpu(const ErnieVilgConfig& config, const WeightScope& weights, CpuIsa isa)
    : ErnieVilg(config),
      heads_{config.heads, config.heads, config.head_dim()},
      parts_(weights.checkpoint().options().dtype, isa),
      embedding_(weights, config) {
  const auto norm = [&](const NormWeights& taken) {
    return taken.weight.defined()
               ? parts_.ToFloat(NormKind::kLayerNorm, config.norm_epsilon, taken.weight, taken.bias)
               : CpuNorm();
  };
  const auto pack = [&](const LinearWeights& taken) {
    return parts_.Pack(taken.weight, taken.bias);
  };
  embedding_norm_ = norm(embedding_.norm());
  for (int64_t i = 0; i < config.layers; ++i) {
    const VilgLayerWeights taken = TakeVilgLayer(weights, config, i);
    if (!weights.status().ok()) return;
    layers_.push_back({pack(taken.qkv), pack(taken.attention_out), pack(taken.inner),
                       pack(taken.out), norm(taken.attention_norm), norm(taken.out_norm),
                       norm(taken.attention_before), norm(taken.inner_before)});
  }
  const VilgOuterWeights outer = TakeVilgOuter(weights, config, embedding_.words());
  if (!weights.status().ok()) return;
  norm_ = norm(outer.norm);
  text_inner_ = pack(outer.text_inner);
  text_norm_ = norm(outer.text_norm);
  text_head_ = pack(outer.text_head);
  picture_head_ = pack(outer.picture_head);
}

ErnieVilgCpu::Places ErnieVilgCpu::PlacesOf(const VilgBatch& batch) const {
  std::array<bool, std::size(kSights)> used = {};
  for (int64_t i = 0; i < config().layers; ++i) {
    used[static_cast<size_t>(config().SightOfLayer(i))] = true;
  }
  Places places;
  std::vector<SlotRange> reads;
  for (const Sight sight : kSights) {
    const auto index = static_cast<size_t>(sight);
    if (!used[index]) continue;
    for (const VilgBatch::Sequence& sequence : batch.sequences) {
      for (int64_t t = sequence.first; t < sequence.first + sequence.count; ++t) {
        const int64_t position = batch.positions[t];
        sequence.slots.FindReads(sight, position, reads);
        places[index].Add(sequence.page_table, sequence.slots.SlotOf(sight, position), reads);
      }
    }
  }
  return places;
}

ErnieVilgCpu::Buffers ErnieVilgCpu::Embed(const VilgBatch& batch) const {
  const int64_t width = config().width, count = batch.tokens();
  Buffers buffers;
  buffers.residual = at::zeros({count, PaddedColumns(width)}, at::kFloat);
  buffers.residual.narrow(1, 0, width).copy_(embedding_.Sum(batch));
  buffers.normed = parts_.Activations(count, width);
  buffers.qkv = parts_.Floats(count, 3 * width);
  buffers.attended = parts_.Activations(count, width);
  buffers.inner = parts_.Activations(count, config().inner);
  if (config().norm_position == NormPosition::kSandwich) {
    buffers.branch = parts_.Floats(count, width);
  }
  if (config().norm_position == NormPosition::kPost) {
    parts_.Normalize(buffers.residual, embedding_norm_, buffers.normed);
  }
  parts_.NormalizeInPlace(buffers.residual, embedding_norm_);
  return buffers;
}

void ErnieVilgCpu::Enter(const CpuNorm& norm, const CpuNorm& before, Buffers& buffers) const {
  switch (config().norm_position) {
    case NormPosition::kPost:
      return;  // Leave has done it
    case NormPosition::kPre:
      return parts_.Normalize(buffers.residual, norm, buffers.normed);
    case NormPosition::kSandwich:
      return parts_.Normalize(buffers.residual, before, buffers.normed);
  }
}

void ErnieVilgCpu::Leave(const CpuMatrix& matrix, const at::Tensor& input, const CpuNorm& norm,
                         Buffers& buffers) const {
  switch (config().norm_position) {
    case NormPosition::kPost:
      parts_.Multiply(matrix, input, buffers.residual, Output::kAddFloat32);
      parts_.Normalize(buffers.residual, norm, buffers.normed);
      return parts_.NormalizeInPlace(buffers.residual, norm);
    case NormPosition::kPre:
      return parts_.Multiply(matrix, input, buffers.residual, Output::kAddFloat32);
    case NormPosition::kSandwich:
      parts_.Multiply(matrix, input, buffers.branch, Output::kFloat32);
      parts_.NormalizeInPlace(buffers.branch, norm);
      buffers.residual.add_(buffers.branch);
  }
}

at::Tensor ErnieVilgCpu::Predict(bool paints, const std::vector<int64_t>& wanted,
                                 const Buffers& buffers) const {
  const auto count = static_cast<int64_t>(wanted.size());
  const at::Tensor index = at::tensor(wanted, at::kLong);
  at::Tensor input;
  if (config().norm_position == NormPosition::kPost) {
    input = buffers.normed.index_select(0, index);
  } else {
    input = parts_.Activations(count, config().width);
    parts_.Normalize(buffers.residual.index_select(0, index), norm_, input);
  }
  if (!paints) {
    at::Tensor inner = parts_.Floats(count, config().width);
    parts_.Multiply(text_inner_, input, inner, Output::kFloat32, config().activation);
    parts_.Normalize(inner, text_norm_, input);
  }
  const int64_t kinds = paints ? config().codes : config().text_vocabulary;
  at::Tensor logits = parts_.Floats(count, kinds);
  parts_.Multiply(paints ? picture_head_ : text_head_, input, logits, Output::kFloat32);
  return logits.narrow(1, 0, kinds);
}

std::vector<at::Tensor> ErnieVilgCpu::Forward(absl::Span<const VilgRow> rows,
                                              KvCache& cache) const {
  const VilgBatch batch(rows, config());
  const Places all_places = PlacesOf(batch);
  Buffers buffers = Embed(batch);
  const double scale = 1 / std::sqrt(static_cast<double>(heads_.head_dim));
  for (int64_t i = 0; i < config().layers; ++i) {
    const Layer& layer = layers_[i];
    const TokenPlaces& places = all_places[static_cast<size_t>(config().SightOfLayer(i))];
    const CpuAttention attention = {heads_, scale, cache.keys[i], cache.values[i]};
    Enter(layer.attention_norm, layer.attention_before, buffers);
    parts_.Multiply(layer.qkv, buffers.normed, buffers.qkv, Output::kFloat32);
    parts_.WriteCache(buffers.qkv, places, attention);
    parts_.Attend(buffers.qkv, places, attention, buffers.attended);
    Leave(layer.attention_out, buffers.attended, layer.attention_norm, buffers);
    Enter(layer.out_norm, layer.inner_before, buffers);
    parts_.Multiply(layer.inner, buffers.normed, buffers.inner, Output::kActivations,
                    config().activation);
    Leave(layer.out, buffers.inner, layer.out_norm, buffers);
  }
  return batch.GiveOut([&](bool paints, const std::vector<int64_t>& wanted) {
    return Predict(paints, wanted, buffers);
  });
}

}  // namespace hanmo
