#include "workers/models/ernie_vilg_config.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "workers/models/decoder_config.h"
#include "workers/models/model_config.h"

namespace hanmo {
namespace {

constexpr char kPattern[] = "attention_pattern";

// The fields of the pattern beside the others, as "attention_pattern.cycle".
nlohmann::json WithFlatPattern(const nlohmann::json& json) {
  nlohmann::json flat = json;
  const auto pattern = json.find(kPattern);
  if (pattern == json.end() || !pattern->is_object()) return flat;
  for (const auto& [name, value] : pattern->items()) {
    flat[absl::StrCat(kPattern, ".", name)] = value;
  }
  return flat;
}

int64_t Required(ModelConfig& fields, const nlohmann::json& json, const char* key, Range range) {
  if (!json.contains(key)) fields.Fail(key, "is absent");
  return fields.Integer(key, 1, range);
}

NormPosition ReadNormPosition(ModelConfig& fields) {
  const std::string name = fields.String("norm_position", "post");
  if (name == "pre") return NormPosition::kPre;
  if (name == "sandwich") return NormPosition::kSandwich;
  if (name != "post") fields.Fail("norm_position", "must be pre, post or sandwich");
  return NormPosition::kPost;
}

void ReadPattern(ModelConfig& fields, const nlohmann::json& json, ErnieVilgConfig& config) {
  const auto pattern = json.find(kPattern);
  if (pattern == json.end() || pattern->is_null()) return;
  if (!pattern->is_object()) fields.Fail(kPattern, "must be an object or null");
  const auto key = [](const char* name) { return absl::StrCat(kPattern, ".", name); };
  config.sparse = true;
  config.cycle = fields.Integer(key("cycle"), 4, {1, 1024});
  config.column_at = fields.Integer(key("column_at"), 2, {0, 1023});
  config.window_last = fields.Boolean(key("conv_last"), true);
  const int64_t kernel = fields.Integer(key("conv_kernel"), 11, {1, 4095});
  if (config.column_at >= config.cycle) fields.Fail(key("column_at"), "must be below cycle");
  if (kernel % 2 == 0) fields.Fail(key("conv_kernel"), "must be odd");
  config.window_reach = kernel / 2;
}

void ReadIds(ModelConfig& fields, const nlohmann::json& json, ErnieVilgConfig& config) {
  const std::pair<const char*, int32_t*> ids[] = {{"cls_token_id", &config.cls},
                                                  {"sep_token_id", &config.sep},
                                                  {"pad_token_id", &config.pad},
                                                  {"boi_token_id", &config.begin_picture},
                                                  {"bot_token_id", &config.begin_text}};
  for (const auto& [key, id] : ids) {
    const Range words = {0, static_cast<double>(config.text_vocabulary - 1)};
    *id = static_cast<int32_t>(Required(fields, json, key, words));
  }
}

}  // namespace

Sight ErnieVilgConfig::SightOfLayer(int64_t layer) const {
  if (!sparse) return Sight::kAll;
  if (window_last && layer == layers - 1) return Sight::kWindow;
  return layer % cycle == column_at ? Sight::kColumn : Sight::kRow;
}

absl::StatusOr<ErnieVilgConfig> ErnieVilgConfig::FromJson(const nlohmann::json& json) {
  const nlohmann::json flat = WithFlatPattern(json);
  ModelConfig fields(flat, "transformer");
  if (!fields.status().ok()) return fields.status();
  const auto type = json.find("model_type");
  if (type == json.end() || *type != "ernie_vilg") {
    fields.Fail("model_type", "must be \"ernie_vilg\"");
  }
  ErnieVilgConfig config;
  config.text_vocabulary = Required(fields, json, "text_vocab_size", {1, 1e6});
  config.codes = Required(fields, json, "image_vocab_size", {1, 1e6});
  config.width = Required(fields, json, "hidden_size", {1, 65536});
  config.layers = Required(fields, json, "num_hidden_layers", {1, 1024});
  config.heads = Required(fields, json, "num_attention_heads", {1, 1024});
  config.inner = fields.Integer("intermediate_size", 4 * config.width, {1, 262144});
  config.activation = ReadActivation(fields, "hidden_act", "gelu");
  config.norm_epsilon = fields.Real("layer_norm_eps", 1e-12, {0, 1});
  config.norm_position = ReadNormPosition(fields);
  config.text_tokens = Required(fields, json, "max_text_length", {3, 65536});
  const std::vector<int64_t> grid = fields.IntegerList("image_grid", {0, 0}, {1, 4096});
  if (grid.size() != 2 || grid[0] < 1) fields.Fail("image_grid", "must be [rows, columns]");
  config.rows = grid[0];
  config.columns = grid.back();
  fields.Require("token_type_vocab_size", 4);
  ReadPattern(fields, json, config);
  ReadIds(fields, json, config);
  config.tied_head = fields.Boolean("tie_word_embeddings", true);
  if (config.width % config.heads != 0) {
    fields.Fail("num_attention_heads", "must divide hidden_size");
  }
  if (!fields.status().ok()) return fields.status();
  return config;
}

}  // namespace hanmo
