#include "server/rpc/model.h"

#include <filesystem>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace hanmo {
namespace {

// The vocabulary beside the reranker, if there is one, which must not know more than the model.
void OpenReranker(const std::filesystem::path& folder, Model* model) {
  auto tokenizer = Tokenizer::Load(folder, "BertTokenizer");
  if (tokenizer.ok()) {
    model->reranker_tokenizer = *std::move(tokenizer);
  } else if (!absl::IsNotFound(tokenizer.status())) {
    model->spec.status = tokenizer.status();
    return;
  }
  const Tokenizer& own =
      model->reranker_tokenizer != nullptr ? *model->reranker_tokenizer : *model->tokenizer;
  const uint32_t vocabulary = model->spec.picture.reranker_vocabulary;
  if (own.vocab_size() <= vocabulary) return;
  model->spec.status = absl::InvalidArgumentError(
      absl::StrCat("reranker/config.json has vocab_size ", vocabulary, ", less than the ",
                   own.vocab_size(), " tokens of its vocabulary"));
}

// Requests are framed by the tokenizer, and the model was told by its configuration how.
void CheckTokenIds(Model* model) {
  const PictureTokensSpec& tokens = model->spec.tokens;
  const Tokenizer& tokenizer = *model->tokenizer;
  const auto fail = [&](absl::string_view key, uint32_t configured, absl::string_view found) {
    model->spec.status = absl::InvalidArgumentError(absl::StrCat(
        "transformer/config.json has ", key, " ", configured, ", but the tokenizer ", found));
  };
  if (tokenizer.vocab_size() > tokens.text_vocabulary) {
    fail("text_vocab_size", tokens.text_vocabulary,
         absl::StrCat("has ", tokenizer.vocab_size(), " tokens"));
  } else if (tokenizer.special().cls != tokens.cls) {
    fail("cls_token_id", tokens.cls, "has another [CLS]");
  } else if (tokenizer.special().sep != tokens.sep) {
    fail("sep_token_id", tokens.sep, "has another [SEP]");
  }
}

}  // namespace

void SetTokenizer(std::unique_ptr<const Tokenizer> tokenizer, Model* model) {
  model->tokenizer = std::move(tokenizer);
  if (model->spec.kind != ModelKind::kText) return;
  const Tokenizer& words = *model->tokenizer;
  model->guides = std::make_unique<BackgroundGuideVocabulary>(
      [&words] { return GuideVocabulary::Create(words, GuideUse::kCheck); });
}

Model OpenModel(ModelSpec spec) {
  Model model;
  model.spec = std::move(spec);
  if (!model.spec.status.ok()) return model;
  const bool picture = model.spec.kind != ModelKind::kText;
  std::filesystem::path folder = model.spec.path;
  if (picture) folder /= "tokenizer";
  // What transformers assumes where tokenizer_config.json names no class.
  const bool gpt2 = absl::StartsWith(model.spec.architecture, "GPT2");
  auto tokenizer = Tokenizer::Load(folder, gpt2 ? "GPT2Tokenizer" : "");
  if (!tokenizer.ok()) {
    // A text model serves token ids without one; a picture cannot be asked for without words.
    if (picture || !absl::IsNotFound(tokenizer.status())) model.spec.status = tokenizer.status();
    return model;
  }
  SetTokenizer(*std::move(tokenizer), &model);
  if (model.spec.kind == ModelKind::kPictureTokens) CheckTokenIds(&model);
  if (model.spec.picture.reranker_tokens > 0) {
    OpenReranker(std::filesystem::path(model.spec.path) / "reranker", &model);
  }
  auto chat_template = ChatTemplate::Load(folder, *model.tokenizer);
  if (chat_template.ok()) {
    model.chat_template = *std::move(chat_template);
  } else if (!absl::IsNotFound(chat_template.status())) {
    model.spec.status = chat_template.status();
  }
  return model;
}

}  // namespace hanmo
