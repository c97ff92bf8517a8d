#include "server/ernie_vilg_folder.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/json_file.h"

namespace hanmo {
namespace {

// Pixels a side, as of the pictures that clients send.
constexpr uint32_t kMaxSide = 4096;
constexpr uint32_t kMaxTextTokens = 65536;

uint32_t Whole(JsonFile* file, const std::string& key, uint32_t min, uint32_t max) {
  if (file->Find(key) == nullptr) {
    file->Fail(absl::StrCat("lacks ", key));
    return min;
  }
  const double number = file->Number(key, min, min, max);
  if (number != std::floor(number)) file->Fail(absl::StrCat("has ", key, " that is not whole"));
  return static_cast<uint32_t>(number);
}

void ReadGrid(JsonFile* config, PictureTokensSpec* tokens) {
  const nlohmann::json* grid = config->Find("image_grid");
  const auto in_range = [](const nlohmann::json& side) {
    return side.is_number_unsigned() && side.get<uint64_t>() >= 1 &&
           side.get<uint64_t>() <= kMaxSide;
  };
  if (grid == nullptr || !grid->is_array() || grid->size() != 2 || !in_range((*grid)[0]) ||
      !in_range((*grid)[1])) {
    return config->Fail("lacks image_grid, [rows, columns] of picture tokens");
  }
  tokens->rows = (*grid)[0].get<uint32_t>();
  tokens->columns = (*grid)[1].get<uint32_t>();
}

// The pictures that so many tokens are.
void ReadPictureSize(JsonFile* config, JsonFile* vae, const PictureTokensSpec& tokens,
                     PictureModelSpec* picture) {
  const nlohmann::json* blocks = vae->Find("block_out_channels");
  if (blocks == nullptr || !blocks->is_array() || blocks->empty() || blocks->size() > 8) {
    return vae->Fail("lacks block_out_channels, a list of 1 to 8 widths");
  }
  const uint32_t factor = 1u << (blocks->size() - 1);
  picture->height = tokens.rows * factor;
  picture->width = tokens.columns * factor;
  if (picture->height > kMaxSide || picture->width > kMaxSide) {
    config->Fail(absl::StrCat("has an image_grid of ", tokens.rows, " x ", tokens.columns,
                              ", more than ", kMaxSide / factor, " a side"));
  }
  const nlohmann::json* size = vae->Find("sample_size");
  const uint32_t longer = std::max(picture->height, picture->width);
  // 32 is what diffusers writes where nobody said anything.
  if (size != nullptr && *size != 32 && *size != longer) {
    vae->Fail(absl::StrCat("has sample_size ", size->dump(), ", but an image_grid of ", tokens.rows,
                           " x ", tokens.columns, " times ", factor, " is ", picture->height, " x ",
                           picture->width, " pixels"));
  }
}

void ReadIds(JsonFile* config, PictureTokensSpec* tokens) {
  const std::pair<const char*, uint32_t*> ids[] = {{"cls_token_id", &tokens->cls},
                                                   {"sep_token_id", &tokens->sep},
                                                   {"pad_token_id", &tokens->pad},
                                                   {"boi_token_id", &tokens->boi},
                                                   {"bot_token_id", &tokens->bot}};
  for (const auto& [key, id] : ids) {
    *id = Whole(config, key, 0, UINT32_MAX);
    if (config->status().ok() && *id >= tokens->text_vocabulary) {
      config->Fail(absl::StrCat("has ", key, " ", *id, " outside its text vocabulary of ",
                                tokens->text_vocabulary));
    }
  }
}

void ReadSampling(JsonFile* generation, PictureTokensSpec* tokens) {
  tokens->temperature = static_cast<float>(generation->Number("temperature", 1, 0, 100));
  tokens->top_k = static_cast<uint32_t>(generation->Number("top_k", 0, 0, 1 << 28));
  tokens->top_p = static_cast<float>(generation->Number("top_p", 1, 1e-6, 1));
  tokens->candidates = static_cast<uint32_t>(generation->Number("num_candidates", 0, 0, 64));
}

}  // namespace

absl::Status ReadErnieVilg(const std::filesystem::path& folder, ModelSpec* spec) {
  spec->kind = ModelKind::kPictureTokens;
  JsonFile config(folder, "transformer/config.json", true);
  JsonFile vae(folder, "vqvae/config.json", true);
  JsonFile generation(folder, "generation_config.json", false);
  if (!config.status().ok()) return config.status();
  if (!vae.status().ok()) return vae.status();
  if (config.Text("model_type") != "ernie_vilg") {
    config.Fail(absl::StrCat("has the model_type \"", config.Text("model_type"),
                             "\"; ernie_vilg is served"));
  }
  PictureTokensSpec& tokens = spec->tokens;
  tokens.text_vocabulary = Whole(&config, "text_vocab_size", 1, 1 << 28);
  tokens.picture_vocabulary = Whole(&config, "image_vocab_size", 1, 1 << 28);
  tokens.text_tokens = Whole(&config, "max_text_length", 3, kMaxTextTokens);
  ReadGrid(&config, &tokens);
  ReadIds(&config, &tokens);
  if (config.status().ok()) ReadPictureSize(&config, &vae, tokens, &spec->picture);
  const uint32_t codes = Whole(&vae, "num_vq_embeddings", 1, 1 << 28);
  if (vae.status().ok() && codes != tokens.picture_vocabulary) {
    vae.Fail(absl::StrCat("has num_vq_embeddings ", codes, ", but transformer/config.json has ",
                          "image_vocab_size ", tokens.picture_vocabulary));
  }
  ReadSampling(&generation, &tokens);
  for (const JsonFile* file : {&config, &vae, &generation}) {
    if (!file->status().ok()) return file->status();
  }

  PictureModelSpec& picture = spec->picture;
  picture.max_size = std::max(picture.width, picture.height);
  picture.steps = picture.max_steps = tokens.rows * tokens.columns;
  picture.guidance = 1;
  picture.prompt_tokens = tokens.text_tokens;
  picture.vocabulary_size = tokens.text_vocabulary;
  // Of the texts about pictures.
  spec->text.context_tokens = tokens.text_tokens;
  spec->text.vocabulary_size = tokens.text_vocabulary;
  spec->text.eos_token_ids = {tokens.sep};
  spec->text.max_tokens = tokens.text_tokens;
  return absl::OkStatus();
}

}  // namespace hanmo
