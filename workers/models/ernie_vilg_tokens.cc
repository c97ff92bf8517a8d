#include "workers/models/ernie_vilg_tokens.h"

#include <algorithm>

namespace hanmo {
namespace {

// Rows of token_type_embeddings.
enum TokenType : int64_t {
  kSourceText = 0,
  kTargetPicture = 1,
  kSourcePicture = 2,
  kTargetText = 3
};
constexpr int64_t kTokenTypes = 4;

LinearWeights TakeLinear(const WeightScope& weights, int64_t in, int64_t out) {
  return {weights.Take("weight", {out, in}), weights.Take("bias", {out})};
}

NormWeights TakeNorm(const WeightScope& weights, int64_t width) {
  return {weights.Take("weight", {width}), weights.Take("bias", {width})};
}

int64_t TypeOf(const ErnieVilgSlots& slots, int64_t position, bool paints) {
  if (position >= slots.target_begin()) return paints ? kTargetPicture : kTargetText;
  return paints ? kSourceText : kSourcePicture;
}

}  // namespace

VilgLayerWeights TakeVilgLayer(const WeightScope& weights, const ErnieVilgConfig& config,
                               int64_t layer) {
  const int64_t width = config.width;
  const WeightScope scope = weights.Sub("encoder").Sub("layer", layer);
  const WeightScope attention = scope.Sub("attention"), self = attention.Sub("self");
  std::vector<at::Tensor> qkv, biases;
  for (const char* name : {"query", "key", "value"}) {
    const LinearWeights part = TakeLinear(self.Sub(name), width, width);
    qkv.push_back(part.weight);
    biases.push_back(part.bias);
  }
  VilgLayerWeights taken;
  taken.qkv = {at::cat(qkv), at::cat(biases)};
  taken.attention_out = TakeLinear(attention.Sub("output").Sub("dense"), width, width);
  taken.attention_norm = TakeNorm(attention.Sub("output").Sub("LayerNorm"), width);
  taken.inner = TakeLinear(scope.Sub("intermediate").Sub("dense"), width, config.inner);
  taken.out = TakeLinear(scope.Sub("output").Sub("dense"), config.inner, width);
  taken.out_norm = TakeNorm(scope.Sub("output").Sub("LayerNorm"), width);
  if (config.norm_position == NormPosition::kSandwich) {
    taken.attention_before = TakeNorm(attention.Sub("LayerNorm"), width);
    taken.inner_before = TakeNorm(scope.Sub("intermediate").Sub("LayerNorm"), width);
  }
  return taken;
}

VilgOuterWeights TakeVilgOuter(const WeightScope& weights, const ErnieVilgConfig& config,
                               const at::Tensor& words) {
  const WeightScope text = weights.Sub("lm_head");
  VilgOuterWeights outer;
  if (config.norm_position != NormPosition::kPost) {
    outer.norm = TakeNorm(weights.Sub("encoder").Sub("LayerNorm"), config.width);
  }
  outer.text_inner = TakeLinear(text.Sub("dense"), config.width, config.width);
  outer.text_norm = TakeNorm(text.Sub("LayerNorm"), config.width);
  const WeightScope decoder = text.Sub("decoder");
  outer.text_head = {
      config.tied_head ? words : decoder.Take("weight", {config.text_vocabulary, config.width}),
      decoder.Take("bias", {config.text_vocabulary})};
  outer.picture_head = TakeLinear(weights.Sub("image_head"), config.width, config.codes);
  return outer;
}

VilgBatch::VilgBatch(absl::Span<const VilgRow> rows, const ErnieVilgConfig& config) {
  for (const VilgRow& row : rows) {
    const ErnieVilgSlots slots(config, row.source_tokens, row.paints);
    Sequence sequence = {slots, row.page_table.data(), tokens()};
    sequence.paints = row.paints;
    for (size_t i = 0; i < row.tokens.size(); ++i) {
      const int64_t position = row.start + static_cast<int64_t>(i);
      if (slots.IsPadding(position)) continue;
      const int64_t picture = slots.PictureToken(position);
      const int64_t text =
          position < slots.target_begin() ? position : position - slots.target_begin();
      positions.push_back(position);
      ids.push_back(row.tokens[i]);
      places.push_back(picture < 0 ? text : config.text_tokens + 1 + picture);
      types.push_back(TypeOf(slots, position, row.paints));
    }
    sequence.count = tokens() - sequence.first;
    const int64_t target = std::max<int64_t>(0, slots.target_begin() - row.start);
    const int64_t source = row.start == 0 ? slots.source_tokens() : 0;
    const auto given = static_cast<int64_t>(row.tokens.size());
    sequence.first_logits = row.logits == LogitsOf::kAllTokens ? std::min(source, sequence.count)
                            : row.logits == LogitsOf::kLastToken && given > target
                                ? sequence.count - 1
                                : sequence.count;
    sequences.push_back(sequence);
  }
}

std::vector<at::Tensor> VilgBatch::GiveOut(
    absl::FunctionRef<at::Tensor(bool paints, const std::vector<int64_t>& tokens)> predict) const {
  std::vector<at::Tensor> logits(sequences.size());
  for (const bool paints : {true, false}) {
    std::vector<int64_t> wanted;
    for (const Sequence& sequence : sequences) {
      if (sequence.paints != paints) continue;
      for (int64_t i = sequence.first_logits; i < sequence.count; ++i) {
        wanted.push_back(sequence.first + i);
      }
    }
    if (wanted.empty()) continue;
    const at::Tensor all = predict(paints, wanted);
    int64_t next = 0;
    for (size_t i = 0; i < sequences.size(); ++i) {
      const int64_t count = sequences[i].count - sequences[i].first_logits;
      if (sequences[i].paints != paints || count == 0) continue;
      logits[i] = all.narrow(0, next, count);
      next += count;
    }
  }
  return logits;
}

VilgEmbedding::VilgEmbedding(const WeightScope& weights, const ErnieVilgConfig& config) {
  const WeightScope from = weights.Sub("embeddings");
  const auto take = [&](const char* name, int64_t rows) {
    return from.Sub(name).Take("weight", {rows, config.width});
  };
  words_ = take("word_embeddings", config.text_vocabulary);
  tokens_ = at::cat({words_, take("image_embeddings", config.codes)});
  words_ = tokens_.narrow(0, 0, config.text_vocabulary);
  const at::Tensor rows = take("row_embeddings", config.rows);
  const at::Tensor columns = take("column_embeddings", config.columns);
  const at::Tensor positions = take("position_embeddings", config.text_tokens + 1);
  const at::Tensor picture = rows.to(at::kFloat).unsqueeze(1) + columns.to(at::kFloat);
  places_ = at::cat({positions.to(at::kFloat), picture.flatten(0, 1)});
  types_ = take("token_type_embeddings", kTokenTypes).to(at::kFloat);
  norm_ = TakeNorm(from.Sub("LayerNorm"), config.width);
}

at::Tensor VilgEmbedding::Sum(const VilgBatch& batch) const {
  const auto rows = [&](const at::Tensor& table, const std::vector<int64_t>& of) {
    return table.index_select(0, at::tensor(of, at::kLong).to(table.device())).to(at::kFloat);
  };
  const at::Tensor sum =
      rows(tokens_, batch.ids) + rows(places_, batch.places) + rows(types_, batch.types);
  return sum.is_cpu() ? sum : sum.to(tokens_.scalar_type());
}

}  // namespace hanmo
