// Small models for tests: real tokenizers, no weights.
#ifndef HANMO_SERVER_RPC_TESTING_TEST_MODELS_H_
#define HANMO_SERVER_RPC_TESTING_TEST_MODELS_H_

#include <string>

#include "server/rpc/model_table.h"

namespace hanmo::testing {

// Writes texts; token i is byte i, so prompts and outputs are easy to read. Context 64, vocabulary
// 257, end of text 256.
Model ByteModel(ModelId id, const std::string& name);

// The same without a tokenizer.
Model BareModel(ModelId id, const std::string& name);

// Paints 64 x 64; knows the characters of "山水一二三" and ASCII letters; prompts of 8 tokens with
// [CLS] 2, [SEP] 3 and [PAD] 0.
Model Painter(ModelId id, const std::string& name);

// Paints 16 x 16 by 2 x 2 tokens and writes about pictures of that size, with the words of Painter:
// prompts and texts of 20 tokens, [BOI] 36 and [BOT] 37, picture tokens from 38 on.
Model Scribe(ModelId id, const std::string& name);

// Its folder is broken.
Model BrokenModel(ModelId id, const std::string& name);

}  // namespace hanmo::testing

#endif  // HANMO_SERVER_RPC_TESTING_TEST_MODELS_H_
