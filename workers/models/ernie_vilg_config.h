// ERNIE-ViLG 1.0 in plain numbers, read from its config.json; docs/ernie-vilg.md defines them.
#ifndef HANMO_WORKERS_MODELS_ERNIE_VILG_CONFIG_H_
#define HANMO_WORKERS_MODELS_ERNIE_VILG_CONFIG_H_

#include <cstdint>
#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "workers/kernels/text_kernels.h"

namespace hanmo {

enum class NormPosition { kPost, kPre, kSandwich };

// Which picture tokens a picture token sees.
enum class Sight { kAll, kRow, kColumn, kWindow };
inline constexpr Sight kSights[] = {Sight::kAll, Sight::kRow, Sight::kColumn, Sight::kWindow};

struct ErnieVilgConfig {
  int64_t text_vocabulary = 0;  // ids below are words, those from here on picture tokens
  int64_t codes = 0;            // kinds of picture tokens
  int64_t layers = 0;
  int64_t width = 0;
  int64_t inner = 0;  // of the feed-forward parts
  int64_t heads = 0;  // divides width
  TextActivation activation = TextActivation::kGeluErf;
  double norm_epsilon = 1e-12;
  NormPosition norm_position = NormPosition::kPost;
  int64_t text_tokens =
      0;             // of a source text, and of a target text without the token that begins it
  int64_t rows = 0;  // of picture tokens
  int64_t columns = 0;
  bool sparse = false;  // the three fields below count
  int64_t cycle = 4;
  int64_t column_at = 2;
  bool window_last = true;
  int64_t window_reach = 5;  // to each side
  int32_t cls = 0, sep = 0, pad = 0;
  int32_t begin_picture = 0, begin_text = 0;
  bool tied_head = true;  // of words

  int64_t head_dim() const { return width / heads; }
  int64_t picture_tokens() const { return rows * columns; }
  int64_t vocabulary() const { return text_vocabulary + codes; }
  Sight SightOfLayer(int64_t layer) const;

  // INVALID_ARGUMENT names the key that is absent, malformed or not supported.
  static absl::StatusOr<ErnieVilgConfig> FromJson(const nlohmann::json& json);
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_ERNIE_VILG_CONFIG_H_
