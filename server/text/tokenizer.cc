#include "server/text/tokenizer.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "server/text/bridge_result.h"
#include "server/text/folder_file.h"

namespace hanmo {
namespace {

hanmo_text View(const std::optional<std::string>& text) {
  return text ? hanmo_text{text->data(), text->size()} : hanmo_text{nullptr, 0};
}

struct FreeIds {
  void operator()(uint32_t* ids) const { hanmo_bridge_free_ids(ids); }
};

}  // namespace

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::Load(
    const std::filesystem::path& folder, absl::string_view class_hint) {
  TokenizerFiles files;
  files.class_hint = std::string(class_hint);
  const std::pair<const char*, std::optional<std::string>*> names[] = {
      {"tokenizer.json", &files.tokenizer_json},
      {"vocab.txt", &files.vocab_txt},
      {"vocab.json", &files.vocab_json},
      {"merges.txt", &files.merges_txt},
      {"tokenizer_config.json", &files.tokenizer_config},
      {"special_tokens_map.json", &files.special_tokens_map},
      {"added_tokens.json", &files.added_tokens},
  };
  for (const auto& [name, content] : names) {
    auto read = ReadFolderFile(folder, name);
    if (!read.ok()) return read.status();
    *content = *std::move(read);
  }
  if (!files.tokenizer_json && !files.vocab_txt && !files.vocab_json) {
    std::error_code error;
    const bool sentencepiece = std::filesystem::exists(folder / "tokenizer.model", error);
    return absl::NotFoundError(absl::StrCat(
        folder.string(), ": no tokenizer.json, vocab.txt or vocab.json",
        sentencepiece ? "; models/convert/README.md makes a tokenizer.json of tokenizer.model"
                      : ""));
  }
  auto tokenizer = FromFiles(files);
  if (!tokenizer.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder.string(), ": ", tokenizer.status().message()));
  }
  return tokenizer;
}

absl::StatusOr<std::unique_ptr<const Tokenizer>> Tokenizer::FromFiles(const TokenizerFiles& files) {
  hanmo_tokenizer_files views = {
      .tokenizer_json = View(files.tokenizer_json),
      .vocab_txt = View(files.vocab_txt),
      .vocab_json = View(files.vocab_json),
      .merges_txt = View(files.merges_txt),
      .tokenizer_config = View(files.tokenizer_config),
      .special_tokens_map = View(files.special_tokens_map),
      .added_tokens = View(files.added_tokens),
      .class_hint = {nullptr, 0},
  };
  if (!files.class_hint.empty()) {
    views.class_hint = {files.class_hint.data(), files.class_hint.size()};
  }
  hanmo_tokenizer* tokenizer = nullptr;
  char* error = nullptr;
  if (hanmo_tokenizer_create(&views, &tokenizer, &error) != 0) {
    return BridgeError("tokenizer", error);
  }
  hanmo_tokenizer_facts facts;
  hanmo_tokenizer_describe(tokenizer, &facts);
  return std::unique_ptr<const Tokenizer>(new Tokenizer(tokenizer, facts));
}

Tokenizer::Tokenizer(hanmo_tokenizer* tokenizer, const hanmo_tokenizer_facts& facts)
    : tokenizer_(tokenizer), facts_(facts) {
  const auto id = [&](int name) -> std::optional<uint32_t> {
    const int64_t value = facts.special_ids[name];
    return value < 0 ? std::nullopt : std::optional<uint32_t>(static_cast<uint32_t>(value));
  };
  special_ = {.bos = id(HANMO_BOS),
              .eos = id(HANMO_EOS),
              .unk = id(HANMO_UNK),
              .sep = id(HANMO_SEP),
              .pad = id(HANMO_PAD),
              .cls = id(HANMO_CLS),
              .mask = id(HANMO_MASK)};
}

Tokenizer::~Tokenizer() { hanmo_tokenizer_free(tokenizer_); }

absl::StatusOr<std::vector<uint32_t>> Tokenizer::Encode(absl::string_view text,
                                                        bool add_special) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("text: ", text.size(), " bytes, at most ", kMaxTextBytes, " are allowed"));
  }
  uint32_t* ids = nullptr;
  size_t count = 0;
  char* error = nullptr;
  if (hanmo_tokenizer_encode(tokenizer_, text.data(), text.size(), add_special, &ids, &count,
                             &error) != 0) {
    return BridgeError("text", error);
  }
  const std::unique_ptr<uint32_t, FreeIds> owned(ids);
  return std::vector<uint32_t>(ids, ids + count);
}

absl::StatusOr<PaddedIds> Tokenizer::EncodePadded(absl::string_view text, size_t length) const {
  const size_t before = facts_.tokens_before;
  const size_t after = facts_.tokens_after;
  if (length < before + after) {
    return absl::InvalidArgumentError(
        absl::StrCat("text length: ", length, " tokens, at least ", before + after, " are needed"));
  }
  auto encoded = Encode(text, /*add_special=*/true);
  if (!encoded.ok()) return encoded.status();
  PaddedIds padded{.ids = *std::move(encoded)};
  std::vector<uint32_t>& ids = padded.ids;
  if (ids.size() > length) {
    padded.truncated = true;
    const size_t excess = ids.size() - length;
    const auto cut = facts_.truncates_left ? ids.begin() + before : ids.end() - after - excess;
    ids.erase(cut, cut + excess);
  }
  padded.used = ids.size();
  if (ids.size() < length) {
    if (!special_.pad) {
      return absl::FailedPreconditionError("tokenizer: padding needs a pad_token, it has none");
    }
    ids.insert(facts_.pads_left ? ids.begin() : ids.end(), length - ids.size(), *special_.pad);
  }
  return padded;
}

absl::StatusOr<std::string> Tokenizer::Decode(absl::Span<const uint32_t> ids,
                                              bool skip_special) const {
  char* text = nullptr;
  size_t size = 0;
  char* error = nullptr;
  if (hanmo_tokenizer_decode(tokenizer_, ids.data(), ids.size(), skip_special, &text, &size,
                             &error) != 0) {
    return BridgeError("token_ids", error);
  }
  const BridgeString owned(text);
  return std::string(text, size);
}

absl::StatusOr<TokenPiece> Tokenizer::Piece(uint32_t id) const {
  char* bytes = nullptr;
  size_t size = 0;
  TokenPiece piece;
  char* error = nullptr;
  if (hanmo_tokenizer_token_bytes(tokenizer_, id, &bytes, &size, &piece.special, &error) != 0) {
    return BridgeError("token_id", error);
  }
  const BridgeString owned(bytes);
  piece.bytes.assign(bytes, size);
  return piece;
}

std::optional<uint32_t> Tokenizer::TokenId(absl::string_view token) const {
  const int64_t id = hanmo_tokenizer_token_id(tokenizer_, token.data(), token.size());
  if (id < 0) return std::nullopt;
  return static_cast<uint32_t>(id);
}

std::optional<size_t> Tokenizer::model_max_length() const {
  if (facts_.model_max_length < 0) return std::nullopt;
  return static_cast<size_t>(facts_.model_max_length);
}

}  // namespace hanmo
