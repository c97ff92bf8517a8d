#include "workers/models/gpt2_aten.h"

#include <limits>

namespace hanmo {
namespace {

at::Tensor Project(const at::Tensor& x, const Gpt2Projection& projection) {
  return at::addmm(projection.bias, x, projection.weight);
}

}  // namespace

Gpt2Aten::Gpt2Aten(const Gpt2Config& config, const WeightScope& weights, int64_t weight_bytes)
    : Gpt2(config, weight_bytes) {
  for (int64_t layer = 0; layer < config.n_layer; ++layer) {
    layers_.push_back(TakeGpt2Layer(weights, config, layer));
  }
  outer_ = TakeGpt2Outer(weights, config);
}

int64_t Gpt2Aten::page_bytes() const {
  return 2 * config().n_layer * config().n_embd * kPageTokens * outer_.tokens.element_size();
}

Gpt2Cache Gpt2Aten::MakeCache(int64_t pages) const {
  const int64_t heads = config().n_head, dim = config().head_dim();
  Gpt2Cache cache{.pages = pages};
  for (int64_t layer = 0; layer < config().n_layer; ++layer) {
    cache.keys.push_back(at::zeros({pages, heads, dim, kPageTokens}, outer_.tokens.options()));
    cache.values.push_back(at::zeros({pages, heads, kPageTokens, dim}, outer_.tokens.options()));
  }
  return cache;
}

Gpt2Aten::Plan Gpt2Aten::MakePlan(absl::Span<const Gpt2Row> rows) const {
  std::vector<int64_t> tokens, positions, pages, slots;
  Plan plan;
  const at::Device device = outer_.tokens.device();
  for (const Gpt2Row& row : rows) {
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
  return plan;
}

at::Tensor Gpt2Aten::Norm(const at::Tensor& x, const Gpt2Norm& norm) const {
  return at::layer_norm(x, {config().n_embd}, norm.weight, norm.bias, config().layer_norm_epsilon);
}

at::Tensor Gpt2Aten::Activate(const at::Tensor& x) const {
  switch (config().activation) {
    case Gpt2Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Gpt2Activation::kGeluErf:
      return at::gelu(x);
    case Gpt2Activation::kRelu:
      return at::relu(x);
    case Gpt2Activation::kSilu:
      return at::silu(x);
  }
  return x;
}

at::Tensor Gpt2Aten::Attend(const Gpt2Row& row, const at::Tensor& query, const at::Tensor& keys,
                            const at::Tensor& values) const {
  const int64_t heads = config().n_head, dim = config().head_dim();
  const int64_t count = query.size(0);
  const int64_t context = row.start + count;
  const at::Tensor q = query.reshape({count, heads, dim}).transpose(0, 1);
  const at::Tensor k = keys.permute({1, 2, 0, 3}).reshape({heads, dim, -1}).narrow(2, 0, context);
  const at::Tensor v = values.permute({1, 0, 2, 3}).reshape({heads, -1, dim}).narrow(1, 0, context);
  at::Tensor scores = at::matmul(q, k).to(at::kFloat);
  if (count > 1) {
    const auto options = at::device(query.device()).dtype(at::kLong);
    const at::Tensor position = at::arange(row.start, context, options).unsqueeze(1);
    scores.masked_fill_(at::arange(context, options).gt(position),
                        -std::numeric_limits<double>::infinity());
  }
  const at::Tensor weights = at::softmax(scores, -1).to(query.scalar_type());
  return at::matmul(weights, v).transpose(0, 1).reshape({count, heads * dim});
}

Gpt2Logits Gpt2Aten::Forward(absl::Span<const Gpt2Row> rows, Gpt2Cache& cache) const {
  const Plan plan = MakePlan(rows);
  const int64_t width = config().n_embd, heads = config().n_head, dim = config().head_dim();
  at::Tensor x =
      outer_.tokens.index_select(0, plan.tokens) + outer_.positions.index_select(0, plan.positions);
  for (int64_t i = 0; i < config().n_layer; ++i) {
    const Gpt2LayerWeights& layer = layers_[i];
    const at::Tensor qkv = Project(Norm(x, layer.ln_1), layer.attention_in);
    const at::Tensor query = qkv.narrow(1, 0, width) * config().AttentionScale(i);
    const at::Tensor key = qkv.narrow(1, width, width).reshape({-1, heads, dim});
    const at::Tensor value = qkv.narrow(1, 2 * width, width).reshape({-1, heads, dim});
    cache.keys[i].permute({0, 3, 1, 2}).index_put_({plan.pages, plan.slots}, key);
    cache.values[i].permute({0, 2, 1, 3}).index_put_({plan.pages, plan.slots}, value);
    std::vector<at::Tensor> attended;
    int64_t token = 0;
    for (size_t r = 0; r < rows.size(); ++r) {
      const auto count = static_cast<int64_t>(rows[r].tokens.size());
      attended.push_back(Attend(rows[r], query.narrow(0, token, count),
                                cache.keys[i].index_select(0, plan.tables[r]),
                                cache.values[i].index_select(0, plan.tables[r])));
      token += count;
    }
    x = x + Project(at::cat(attended), layer.attention_out);
    x = x + Project(Activate(Project(Norm(x, layer.ln_2), layer.mlp_in)), layer.mlp_out);
  }
  Gpt2Logits logits;
  const std::vector<int64_t> wanted = LogitTokens(rows, logits.first);
  x = x.index_select(0, at::tensor(wanted, at::kLong).to(x.device()));
  logits.values = at::matmul(Norm(x, outer_.ln_f), outer_.head.t()).to(at::kCPU, at::kFloat);
  return logits;
}

}  // namespace hanmo
