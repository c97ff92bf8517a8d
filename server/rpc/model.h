// A model as requests need it: what the repository says of it, and what turns texts into tokens.
#ifndef HANMO_SERVER_RPC_MODEL_H_
#define HANMO_SERVER_RPC_MODEL_H_

#include <atomic>
#include <cstdint>
#include <memory>

#include "server/repository.h"
#include "server/text/chat_template.h"
#include "server/text/guide.h"
#include "server/text/tokenizer.h"

namespace hanmo {

// One loading of one version of a model. Constant.
struct Model {
  ModelSpec spec;
  // Null where the folder has none: the model then takes and gives token ids only.
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template;
  // Where texts can be guided: there is a tokenizer, and it writes.
  std::unique_ptr<const BackgroundGuideVocabulary> guides;
  // Of a reranker with a vocabulary of its own; null: it reads what `tokenizer` writes.
  std::unique_ptr<const Tokenizer> reranker_tokenizer;
  // When a request found it last: absl::ToUnixNanos of the steady clock.
  std::unique_ptr<std::atomic<int64_t>> found_at = std::make_unique<std::atomic<int64_t>>(0);
};

// Keeps the model in the workers, so hold it as long as a request needs it and no longer.
using ModelRef = std::shared_ptr<const Model>;

// Gives a text model its tokenizer, and guides by it.
void SetTokenizer(std::unique_ptr<const Tokenizer> tokenizer, Model* model);

// Reads the tokenizer and the chat template of `spec`'s folder. What cannot be read is in the
// returned model's spec.status.
Model OpenModel(ModelSpec spec);

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_MODEL_H_
