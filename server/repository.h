// The model repository: a folder whose sub-folders are checkpoints as they are published, or hold
// several versions of one. Requests name models, never paths.
//
//   repository/taiyi/model_index.json ...            one version, number 1
//   repository/poet/3/config.json ..., poet/4/...    versions 3 and 4
#ifndef HANMO_SERVER_REPOSITORY_H_
#define HANMO_SERVER_REPOSITORY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/batcher/request.h"

namespace hanmo {

enum class ModelKind {
  kText,
  kPicture,
  kPictureTokens,  // paints token by token, and writes about pictures (ERNIE-ViLG)
};

// Limits and defaults of a model that writes; see hanmo.v1.TextModel.
struct TextModelSpec {
  uint32_t context_tokens = 0;
  uint32_t vocabulary_size = 0;
  std::vector<uint32_t> eos_token_ids;
  float temperature = 1;
  uint32_t top_k = 0;
  float top_p = 1;
  float repetition_penalty = 1;
  uint32_t max_tokens = 256;
};

// Limits and defaults of a model that paints; see hanmo.v1.PictureModel.
struct PictureModelSpec {
  uint32_t width = 0;  // pixels
  uint32_t height = 0;
  uint32_t size_multiple = 8;
  uint32_t max_size = 2048;
  uint32_t steps = 50;
  uint32_t max_steps = 1000;
  float guidance = 7.5f;
  std::string sampler;
  uint32_t prompt_tokens = 0;
  uint32_t vocabulary_size = 0;
  // Of a text that pictures are scored against, in the reranker's tokens; 0: it has no reranker.
  uint32_t reranker_tokens = 0;
  uint32_t reranker_vocabulary = 0;
};

// The ids that a model of kPictureTokens paints and writes with.
struct PictureTokensSpec {
  uint32_t rows = 0;  // of the tokens of a picture
  uint32_t columns = 0;
  uint32_t text_vocabulary = 0;  // the ids of picture tokens follow those of texts
  uint32_t picture_vocabulary = 0;
  uint32_t text_tokens = 0;  // of a prompt with its frame, and of a text about a picture
  uint32_t cls = 0;          // frame a prompt; sep ends a text, too
  uint32_t sep = 0;
  uint32_t pad = 0;
  uint32_t boi = 0;  // begin a picture and a text
  uint32_t bot = 0;
  // Of picture tokens.
  float temperature = 1;
  uint32_t top_k = 0;
  float top_p = 1;
  uint32_t candidates = 0;  // to choose from where there is a reranker; 0: as many as asked for
};

struct ModelSpec {
  ModelId id = 0;        // index in RepositoryScan::models, until it is loaded
  std::string name;      // the folder's: 1 to 128 of [A-Za-z0-9._-]
  uint32_t version = 1;  // the sub-folder's name: 1 to 999,999,999
  std::string path;
  // Not OK: the folder cannot be served; the message names the file and the key.
  absl::Status status;
  ModelKind kind = ModelKind::kText;
  std::string architecture;  // as the checkpoint names it
  TextModelSpec text;        // by kind; kPictureTokens has all three
  PictureModelSpec picture;
  PictureTokensSpec tokens;
};

struct RepositoryScan {
  std::vector<ModelSpec> models;     // by name and version
  std::vector<std::string> skipped;  // entries that are no models, each with the reason
};

// The samplers that every picture model has, by the names that requests use.
const std::vector<std::string>& SamplerNames();

// 1 to 128 of [A-Za-z0-9._-], not beginning with a dot.
bool IsModelName(absl::string_view name);

// Reads `folder`, or the one model that it is. A broken model folder is a model whose status says
// why. NOT_FOUND or INVALID_ARGUMENT when `folder` itself cannot be read.
absl::StatusOr<RepositoryScan> ScanRepository(const std::string& folder);

// The versions of one model as they are now, by number. NOT_FOUND when `folder` has no such model,
// INVALID_ARGUMENT when `name` is no model's name.
absl::StatusOr<std::vector<ModelSpec>> ReadVersions(const std::string& folder,
                                                    const std::string& name);

}  // namespace hanmo

#endif  // HANMO_SERVER_REPOSITORY_H_
