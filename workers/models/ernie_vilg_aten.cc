#include "workers/models/ernie_vilg_aten.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "workers/models/text_layers_aten.h"

namespace hanmo {
namespace {

int64_t SlotInCache(const VilgBatch::Sequence& sequence, int64_t slot) {
  return sequence.page_table[slot / kPageTokens] * kPageTokens + slot % kPageTokens;
}

// What the sequence's tokens read together, rising; all of it is written. `reads` of each token.
std::vector<int32_t> UnionOf(const std::vector<std::vector<SlotRange>>& reads) {
  std::vector<int32_t> slots;
  for (const std::vector<SlotRange>& ranges : reads) {
    for (const SlotRange& range : ranges) {
      for (int32_t slot = range.begin; slot < range.end; ++slot) slots.push_back(slot);
    }
    std::sort(slots.begin(), slots.end());
    slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  }
  return slots;
}

bool Reads(const std::vector<SlotRange>& ranges, int32_t slot) {
  return std::any_of(ranges.begin(), ranges.end(), [slot](const SlotRange& range) {
    return slot >= range.begin && slot < range.end;
  });
}

}  // namespace

ErnieVilgAten::ErnieVilgAten(const ErnieVilgConfig& config, const WeightScope& weights)
    : ErnieVilg(config), embedding_(weights, config) {
  for (int64_t i = 0; i < config.layers && weights.status().ok(); ++i) {
    layers_.push_back(TakeVilgLayer(weights, config, i));
  }
  outer_ = TakeVilgOuter(weights, config, embedding_.words());
}

int64_t ErnieVilgAten::page_bytes() const {
  return 2 * config().layers * config().width * kPageTokens * embedding_.words().element_size();
}

KvCache ErnieVilgAten::MakeCache(int64_t pages) const {
  KvCache cache{.pages = pages};
  for (int64_t i = 0; i < config().layers; ++i) {
    for (std::vector<at::Tensor>* side : {&cache.keys, &cache.values}) {
      side->push_back(at::zeros({pages * kPageTokens, config().heads, config().head_dim()},
                                embedding_.words().options()));
    }
  }
  return cache;
}

ErnieVilgAten::Group ErnieVilgAten::MakeGroup(
    Sight sight, const VilgBatch& batch,
    const std::vector<const VilgBatch::Sequence*>& sequences) const {
  const int64_t count = sequences[0]->count;
  std::vector<std::vector<std::vector<SlotRange>>> reads;
  std::vector<std::vector<int32_t>> slots;
  size_t most = 0;
  for (const VilgBatch::Sequence* sequence : sequences) {
    std::vector<std::vector<SlotRange>>& own = reads.emplace_back(count);
    for (int64_t i = 0; i < count; ++i) {
      sequence->slots.FindReads(sight, batch.positions[sequence->first + i], own[i]);
    }
    most = std::max(most, slots.emplace_back(UnionOf(own)).size());
  }
  const auto width = static_cast<int64_t>(most), n = static_cast<int64_t>(sequences.size());
  std::vector<int64_t> tokens, gathered;
  const at::Tensor hidden = at::ones({n, 1, count, width}, at::kBool);
  bool* mask = hidden.data_ptr<bool>();
  for (size_t s = 0; s < sequences.size(); ++s) {
    for (int64_t i = 0; i < count; ++i, mask += width) {
      tokens.push_back(sequences[s]->first + i);
      for (size_t k = 0; k < slots[s].size(); ++k) mask[k] = !Reads(reads[s][i], slots[s][k]);
    }
    // Shorter ones are filled up with what they read anyway.
    slots[s].resize(most, slots[s][0]);
    for (const int32_t slot : slots[s]) gathered.push_back(SlotInCache(*sequences[s], slot));
  }
  const at::Device device = embedding_.words().device();
  return {n, at::tensor(tokens, at::kLong).to(device), at::tensor(gathered, at::kLong).to(device),
          hidden.to(device)};
}

ErnieVilgAten::Plan ErnieVilgAten::MakePlan(Sight sight, const VilgBatch& batch) const {
  Plan plan;
  std::vector<int64_t> written;
  std::vector<const VilgBatch::Sequence*> decoding;
  for (const VilgBatch::Sequence& sequence : batch.sequences) {
    for (int64_t t = sequence.first; t < sequence.first + sequence.count; ++t) {
      written.push_back(SlotInCache(sequence, sequence.slots.SlotOf(sight, batch.positions[t])));
    }
    if (sequence.count == 1) {
      decoding.push_back(&sequence);
    } else {
      plan.groups.push_back(MakeGroup(sight, batch, {&sequence}));
    }
  }
  if (!decoding.empty()) plan.groups.push_back(MakeGroup(sight, batch, decoding));
  plan.written = at::tensor(written, at::kLong).to(embedding_.words().device());
  return plan;
}

at::Tensor ErnieVilgAten::Norm(const at::Tensor& x, const NormWeights& norm) const {
  return at::layer_norm(x, norm.weight.sizes(), norm.weight, norm.bias, config().norm_epsilon);
}

at::Tensor ErnieVilgAten::Attend(const Group& group, const at::Tensor& qkv, const at::Tensor& keys,
                                 const at::Tensor& values) const {
  const int64_t heads = config().heads, dim = config().head_dim(), n = group.sequences;
  const auto by_head = [&](const at::Tensor& x) {  // [n, heads, tokens or slots, head_dim]
    return x.reshape({n, -1, heads, dim}).transpose(1, 2);
  };
  const at::Tensor query = by_head(qkv.narrow(1, 0, config().width).index_select(0, group.tokens));
  const at::Tensor key = by_head(keys.index_select(0, group.slots));
  const at::Tensor value = by_head(values.index_select(0, group.slots));
  at::Tensor scores =
      at::matmul(query * (1 / std::sqrt(static_cast<double>(dim))), key.transpose(2, 3))
          .to(at::kFloat);
  scores.masked_fill_(group.hidden, -std::numeric_limits<double>::infinity());
  return at::matmul(at::softmax(scores, -1).to(value.scalar_type()), value)
      .transpose(1, 2)
      .reshape({-1, config().width});
}

at::Tensor ErnieVilgAten::Attention(const VilgLayerWeights& layer, const at::Tensor& x,
                                    const Plan& plan, at::Tensor& keys, at::Tensor& values) const {
  const int64_t width = config().width;
  const at::Tensor qkv = Project(x, layer.qkv);
  keys.view({-1, width}).index_copy_(0, plan.written, qkv.narrow(1, width, width));
  values.view({-1, width}).index_copy_(0, plan.written, qkv.narrow(1, 2 * width, width));
  at::Tensor attended = at::empty_like(x);
  for (const Group& group : plan.groups) {
    attended.index_copy_(0, group.tokens, Attend(group, qkv, keys, values));
  }
  return Project(attended, layer.attention_out);
}

at::Tensor ErnieVilgAten::FeedForward(const VilgLayerWeights& layer, const at::Tensor& x) const {
  return Project(ApplyActivation(Project(x, layer.inner), config().activation), layer.out);
}

at::Tensor ErnieVilgAten::RunLayer(const VilgLayerWeights& layer, const at::Tensor& x,
                                   const Plan& plan, at::Tensor& keys, at::Tensor& values) const {
  const auto attention = [&](const at::Tensor& input) {
    return Attention(layer, input, plan, keys, values);
  };
  switch (config().norm_position) {
    case NormPosition::kPre: {
      const at::Tensor y = x + attention(Norm(x, layer.attention_norm));
      return y + FeedForward(layer, Norm(y, layer.out_norm));
    }
    case NormPosition::kSandwich: {
      const at::Tensor y =
          x + Norm(attention(Norm(x, layer.attention_before)), layer.attention_norm);
      return y + Norm(FeedForward(layer, Norm(y, layer.inner_before)), layer.out_norm);
    }
    case NormPosition::kPost:
      break;
  }
  const at::Tensor y = Norm(x + attention(x), layer.attention_norm);
  return Norm(y + FeedForward(layer, y), layer.out_norm);
}

at::Tensor ErnieVilgAten::Predict(bool paints, const at::Tensor& x) const {
  const at::Tensor last = outer_.norm.weight.defined() ? Norm(x, outer_.norm) : x;
  if (paints) return Project(last, outer_.picture_head);
  const at::Tensor inner = ApplyActivation(Project(last, outer_.text_inner), config().activation);
  return Project(Norm(inner, outer_.text_norm), outer_.text_head);
}

std::vector<at::Tensor> ErnieVilgAten::Forward(absl::Span<const VilgRow> rows,
                                               KvCache& cache) const {
  const VilgBatch batch(rows, config());
  std::array<Plan, std::size(kSights)> plans;
  const NormWeights& norm = embedding_.norm();
  at::Tensor x = Norm(embedding_.Sum(batch).to(norm.weight.scalar_type()), norm);
  for (int64_t i = 0; i < config().layers; ++i) {
    const Sight sight = config().SightOfLayer(i);
    Plan& plan = plans[static_cast<size_t>(sight)];
    if (!plan.written.defined()) plan = MakePlan(sight, batch);
    x = RunLayer(layers_[i], x, plan, cache.keys[i], cache.values[i]);
  }
  return batch.GiveOut([&](bool paints, const std::vector<int64_t>& wanted) {
    const at::Tensor index = at::tensor(wanted, at::kLong).to(x.device());
    return Predict(paints, x.index_select(0, index)).to(at::kCPU, at::kFloat);
  });
}

}  // namespace hanmo
