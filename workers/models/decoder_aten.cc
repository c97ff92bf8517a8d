#include "workers/models/decoder_aten.h"

#include <limits>

#include "workers/models/text_layers_aten.h"

namespace hanmo {
namespace {

// x [tokens, heads, head_dim], in float32 whatever its type.
at::Tensor Rotate(const at::Tensor& x, const RopeAngles& angles, RopeCall::Pairs pairs) {
  const bool halves = pairs == RopeCall::Pairs::kHalves;
  const int64_t half = x.size(2) / 2;
  const at::Tensor wide = x.to(at::kFloat);
  // The pairs' elements in a dimension of their own.
  const at::Tensor split = wide.reshape(halves ? at::IntArrayRef({x.size(0), x.size(1), 2, half})
                                               : at::IntArrayRef({x.size(0), x.size(1), half, 2}));
  const int64_t pair = halves ? 2 : 3;
  const at::Tensor a = split.select(pair, 0), b = split.select(pair, 1);
  const at::Tensor turned =
      at::stack({a * angles.cos - b * angles.sin, b * angles.cos + a * angles.sin}, halves ? 2 : 3);
  return turned.reshape(x.sizes()).to(x.scalar_type());
}

}  // namespace

DecoderAten::DecoderAten(const DecoderFamily& family, const DecoderConfig& config,
                         const WeightScope& weights)
    : TextModel(config.shape), config_(config) {
  for (int64_t layer = 0; layer < config.layers && weights.status().ok(); ++layer) {
    layers_.push_back(family.take_layer(weights, config, layer));
  }
  outer_ = family.take_outer(weights, config);
}

int64_t DecoderAten::page_bytes() const {
  return 2 * config_.layers * config_.kv_columns() * kPageTokens * outer_.tokens.element_size();
}

KvCache DecoderAten::MakeCache(int64_t pages) const {
  const int64_t heads = config_.kv_heads, dim = config_.head_dim;
  KvCache cache{.pages = pages};
  for (int64_t layer = 0; layer < config_.layers; ++layer) {
    cache.keys.push_back(at::zeros({pages, heads, dim, kPageTokens}, outer_.tokens.options()));
    cache.values.push_back(at::zeros({pages, heads, kPageTokens, dim}, outer_.tokens.options()));
  }
  return cache;
}

DecoderAten::Plan DecoderAten::MakePlan(absl::Span<const TextRow> rows) const {
  std::vector<int64_t> tokens, positions, pages, slots;
  Plan plan;
  const at::Device device = outer_.tokens.device();
  for (const TextRow& row : rows) {
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      const int64_t position = row.start + static_cast<int64_t>(i);
      tokens.push_back(row.tokens[i]);
      positions.push_back(position);
      pages.push_back(row.page_table[position / kPageTokens]);
      slots.push_back(position % kPageTokens);
    }
    const int64_t context = row.start + static_cast<int64_t>(row.tokens.size());
    const std::vector<int64_t> table(
        row.page_table.begin(), row.page_table.begin() + (context + kPageTokens - 1) / kPageTokens);
    plan.tables.push_back(at::tensor(table, at::kLong).to(device));
  }
  plan.tokens = at::tensor(tokens, at::kLong).to(device);
  plan.positions = at::tensor(positions, at::kLong).to(device);
  plan.pages = at::tensor(pages, at::kLong).to(device);
  plan.slots = at::tensor(slots, at::kLong).to(device);
  if (config_.rotates) {
    const RopeAngles angles = AnglesAt(plan.positions, config_.rope, config_.head_dim);
    plan.angles = {angles.cos.unsqueeze(1), angles.sin.unsqueeze(1)};
  }
  return plan;
}

at::Tensor DecoderAten::Norm(const at::Tensor& x, const NormWeights& norm) const {
  const auto columns = norm.weight.sizes();
  return config_.norm == NormKind::kRmsNorm
             ? at::rms_norm(x, columns.vec(), norm.weight, config_.norm_epsilon)
             : at::layer_norm(x, columns, norm.weight, norm.bias, config_.norm_epsilon);
}

at::Tensor DecoderAten::PrepareHeads(const at::Tensor& heads, const at::Tensor& norm,
                                     const Plan& plan) const {
  at::Tensor x = heads;
  if (config_.head_norms) x = at::rms_norm(x, {config_.head_dim}, norm, config_.norm_epsilon);
  return config_.rotates ? Rotate(x, plan.angles, config_.rope.pairs) : x;
}

at::Tensor DecoderAten::Attend(const TextRow& row, const at::Tensor& query, const at::Tensor& keys,
                               const at::Tensor& values) const {
  const int64_t heads = config_.kv_heads, group = config_.heads / heads, dim = config_.head_dim;
  const int64_t count = query.size(0);
  const int64_t context = row.start + count;
  // The queries that share keys lie one below the other.
  const at::Tensor q = query.reshape({count, heads, group, dim})
                           .permute({1, 2, 0, 3})
                           .reshape({heads, group * count, dim});
  const at::Tensor k = keys.permute({1, 2, 0, 3}).reshape({heads, dim, -1}).narrow(2, 0, context);
  const at::Tensor v = values.permute({1, 0, 2, 3}).reshape({heads, -1, dim}).narrow(1, 0, context);
  at::Tensor scores = at::matmul(q, k).to(at::kFloat).view({heads, group, count, context});
  if (count > 1) {
    const auto options = at::device(query.device()).dtype(at::kLong);
    const at::Tensor position = at::arange(row.start, context, options).unsqueeze(1);
    scores.masked_fill_(at::arange(context, options).gt(position),
                        -std::numeric_limits<double>::infinity());
  }
  const at::Tensor weights = at::softmax(scores, -1).to(query.scalar_type());
  return at::matmul(weights.view({heads, group * count, context}), v)
      .view({heads, group, count, dim})
      .permute({2, 0, 1, 3})
      .reshape({count, config_.query_columns()});
}

at::Tensor DecoderAten::Attention(int64_t layer, const at::Tensor& x,
                                  absl::Span<const TextRow> rows, const Plan& plan,
                                  KvCache& cache) const {
  const DecoderLayerWeights& weights = layers_[layer];
  const int64_t queries = config_.query_columns(), columns = config_.kv_columns();
  const at::Tensor qkv = Project(x, weights.qkv);
  const auto heads = [&](int64_t first, int64_t count) {
    return qkv.narrow(1, first, count).reshape({-1, count / config_.head_dim, config_.head_dim});
  };
  const at::Tensor query =
      PrepareHeads(heads(0, queries), weights.query_norm, plan) * config_.ScaleOfLayer(layer);
  const at::Tensor key = PrepareHeads(heads(queries, columns), weights.key_norm, plan);
  const at::Tensor value = heads(queries + columns, columns);
  const at::Tensor &keys = cache.keys[layer], &values = cache.values[layer];
  keys.permute({0, 3, 1, 2}).index_put_({plan.pages, plan.slots}, key);
  values.permute({0, 2, 1, 3}).index_put_({plan.pages, plan.slots}, value);
  std::vector<at::Tensor> attended;
  int64_t token = 0;
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto count = static_cast<int64_t>(rows[r].tokens.size());
    attended.push_back(Attend(rows[r], query.narrow(0, token, count),
                              keys.index_select(0, plan.tables[r]),
                              values.index_select(0, plan.tables[r])));
    token += count;
  }
  return Project(at::cat(attended), weights.attention_out);
}

at::Tensor DecoderAten::Mlp(const DecoderLayerWeights& layer, const at::Tensor& x) const {
  const at::Tensor in = Project(x, layer.mlp_in);
  if (!config_.gated) return Project(ApplyActivation(in, config_.activation), layer.mlp_out);
  const at::Tensor gate = ApplyActivation(in.narrow(1, 0, config_.inner), config_.activation);
  return Project(gate * in.narrow(1, config_.inner, config_.inner), layer.mlp_out);
}

TextLogits DecoderAten::Forward(absl::Span<const TextRow> rows, KvCache& cache) const {
  const Plan plan = MakePlan(rows);
  at::Tensor x = outer_.tokens.index_select(0, plan.tokens);
  if (config_.learned_positions) x = x + outer_.positions.index_select(0, plan.positions);
  for (int64_t i = 0; i < config_.layers; ++i) {
    const DecoderLayerWeights& layer = layers_[i];
    x = x + Attention(i, Norm(x, layer.attention_norm), rows, plan, cache);
    x = x + Mlp(layer, Norm(x, layer.mlp_norm));
  }
  TextLogits logits;
  const std::vector<int64_t> wanted = LogitTokens(rows, logits.first);
  x = x.index_select(0, at::tensor(wanted, at::kLong).to(x.device()));
  logits.values = at::matmul(Norm(x, outer_.norm), outer_.head.t()).to(at::kCPU, at::kFloat);
  return logits;
}

}  // namespace hanmo
