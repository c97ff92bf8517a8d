#include "server/rpc/testing/test_models.h"

#include <cstdlib>
#include <iostream>
#include <utility>

#include "nlohmann/json.hpp"

namespace hanmo::testing {
namespace {

// How byte-level vocabularies write a byte.
std::string ByteCharacter(int byte) {
  const auto printable = [](int b) {
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
  };
  int code = byte;
  if (!printable(byte)) {
    code = 0x100;
    for (int b = 0; b < byte; ++b) code += printable(b) ? 0 : 1;
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

std::unique_ptr<const Tokenizer> Make(const TokenizerFiles& files) {
  auto tokenizer = Tokenizer::FromFiles(files);
  if (!tokenizer.ok()) {
    std::cerr << "test tokenizer: " << tokenizer.status() << std::endl;
    std::abort();
  }
  return *std::move(tokenizer);
}

}  // namespace

Model BareModel(ModelId id, const std::string& name) {
  Model model;
  model.spec.id = id;
  model.spec.name = name;
  model.spec.kind = ModelKind::kText;
  model.spec.architecture = "GPT2LMHeadModel";
  model.spec.text.context_tokens = 64;
  model.spec.text.vocabulary_size = 257;
  model.spec.text.eos_token_ids = {256};
  model.spec.text.max_tokens = 16;
  return model;
}

Model ByteModel(ModelId id, const std::string& name) {
  nlohmann::json vocabulary;
  for (int byte = 0; byte < 256; ++byte) vocabulary[ByteCharacter(byte)] = byte;
  vocabulary["<|endoftext|>"] = 256;
  TokenizerFiles files;
  files.vocab_json = vocabulary.dump();
  files.merges_txt = "#version: 0.2\n";
  files.class_hint = "GPT2Tokenizer";
  Model model = BareModel(id, name);
  SetTokenizer(Make(files), &model);
  return model;
}

Model Painter(ModelId id, const std::string& name) {
  TokenizerFiles files;
  files.vocab_txt = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n山\n水\n一\n二\n三\n";
  for (char c = 'a'; c <= 'z'; ++c) *files.vocab_txt += std::string(1, c) + "\n";
  files.tokenizer_config = R"({"tokenizer_class": "BertTokenizer", "do_lower_case": true})";
  Model model;
  model.spec.id = id;
  model.spec.name = name;
  model.spec.kind = ModelKind::kPicture;
  model.spec.architecture = "StableDiffusionPipeline";
  model.spec.picture.width = 64;
  model.spec.picture.height = 64;
  model.spec.picture.max_size = 512;
  model.spec.picture.sampler = "pndm";
  model.spec.picture.prompt_tokens = 8;
  model.spec.picture.vocabulary_size = 36;
  model.spec.picture.reranker_tokens = 6;
  model.spec.picture.reranker_vocabulary = 36;
  model.tokenizer = Make(files);
  return model;
}

Model Scribe(ModelId id, const std::string& name) {
  Model model = Painter(id, name);
  model.spec.kind = ModelKind::kPictureTokens;
  model.spec.architecture = "ErnieViLGPipeline";
  model.spec.picture = {};
  model.spec.picture.width = model.spec.picture.height = model.spec.picture.max_size = 16;
  model.spec.picture.steps = model.spec.picture.max_steps = 4;
  model.spec.picture.prompt_tokens = 20;
  model.spec.picture.vocabulary_size = 38;
  model.spec.text.context_tokens = model.spec.text.max_tokens = 20;
  model.spec.text.vocabulary_size = 38;
  model.spec.text.eos_token_ids = {3};
  PictureTokensSpec& tokens = model.spec.tokens;
  tokens.rows = tokens.columns = 2;
  tokens.text_vocabulary = 38;
  tokens.picture_vocabulary = 8;
  tokens.text_tokens = 20;
  tokens.cls = 2;
  tokens.sep = 3;
  tokens.boi = 36;
  tokens.bot = 37;
  tokens.top_k = 5;
  return model;
}

Model BrokenModel(ModelId id, const std::string& name) {
  Model model;
  model.spec.id = id;
  model.spec.name = name;
  model.spec.status = absl::InvalidArgumentError("config.json lacks n_positions");
  return model;
}

}  // namespace hanmo::testing
