// Text to token ids and back, for one checkpoint. The ids equal those of transformers 5 loading the
// same folder; the work is done by the `tokenizers` crate behind bridge/.
//
// A Tokenizer never changes after Load and is used by any number of threads at the same time.
#ifndef HANMO_SERVER_TEXT_TOKENIZER_H_
#define HANMO_SERVER_TEXT_TOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "bridge/hanmo_bridge.h"

namespace hanmo {

// The contents of the tokenizer files of a folder, by their names there; absent ones are nullopt.
struct TokenizerFiles {
  std::optional<std::string> tokenizer_json;
  std::optional<std::string> vocab_txt;
  std::optional<std::string> vocab_json;
  std::optional<std::string> merges_txt;
  std::optional<std::string> tokenizer_config;
  std::optional<std::string> special_tokens_map;
  std::optional<std::string> added_tokens;
  // The class to assume where tokenizer_config.json names none, e.g. "GPT2Tokenizer". Optional.
  std::string class_hint;
};

// Ids of the named special tokens; nullopt where the checkpoint has none.
struct SpecialTokenIds {
  std::optional<uint32_t> bos;
  std::optional<uint32_t> eos;
  std::optional<uint32_t> unk;
  std::optional<uint32_t> sep;
  std::optional<uint32_t> pad;
  std::optional<uint32_t> cls;
  std::optional<uint32_t> mask;
};

// A text encoder's input.
struct PaddedIds {
  std::vector<uint32_t> ids;  // of exactly the length asked for
  size_t used = 0;            // ids that are not padding, the framing ones included
  bool truncated = false;     // whether text was cut off
};

// One token as a piece of a stream.
struct TokenPiece {
  std::string bytes;  // may be part of a character
  bool special = false;
};

class Tokenizer {
 public:
  // Longer texts are refused before any work is done on them.
  static constexpr size_t kMaxTextBytes = size_t{4} << 20;

  // Reads the tokenizer files directly in `folder`: tokenizer.json, vocab.txt, or vocab.json with
  // merges.txt, as tokenizer_config.json's class wants them (see hanmo_tokenizer_files). NOT_FOUND
  // if there is none; INVALID_ARGUMENT naming file and field if they are malformed or unsupported.
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> Load(const std::filesystem::path& folder,
                                                               absl::string_view class_hint = "");
  static absl::StatusOr<std::unique_ptr<const Tokenizer>> FromFiles(const TokenizerFiles& files);

  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
  ~Tokenizer();

  // `add_special` frames the ids as the model wants them, e.g. [CLS] … [SEP]. Special tokens
  // spelled out in the text become their ids, as in transformers. INVALID_ARGUMENT if `text` is not
  // UTF-8 or longer than kMaxTextBytes.
  absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text, bool add_special) const;

  // As diffusers prepares a prompt: framed, cut to `length` tokens with the frame kept, padded with
  // the pad token. INVALID_ARGUMENT also if `length` has no room for the frame, FAILED_PRECONDITION
  // if padding is needed and the checkpoint names no pad token.
  absl::StatusOr<PaddedIds> EncodePadded(absl::string_view text, size_t length) const;

  // Always valid UTF-8: bytes that are none become U+FFFD. Unknown ids are left out, special tokens
  // where `skip_special`.
  absl::StatusOr<std::string> Decode(absl::Span<const uint32_t> ids, bool skip_special) const;

  // What the token stands for in bytes where is_byte_level(), else its text in the vocabulary;
  // empty for an unknown id.
  absl::StatusOr<TokenPiece> Piece(uint32_t id) const;

  // The id of a token by its text in the vocabulary.
  std::optional<uint32_t> TokenId(absl::string_view token) const;

  size_t vocab_size() const { return facts_.vocab_size; }  // with added tokens
  const SpecialTokenIds& special() const { return special_; }
  // Tokens; nullopt where the checkpoint states no limit.
  std::optional<size_t> model_max_length() const;
  // Whether decoding is the concatenation of the tokens' bytes, read as UTF-8.
  bool is_byte_level() const { return facts_.is_byte_level; }
  // Whether decoding strips white space at both ends (CLIP), so that it depends on what follows.
  bool trims_decoded() const { return facts_.trims_decoded; }

 private:
  friend class GuideVocabulary;
  Tokenizer(hanmo_tokenizer* tokenizer, const hanmo_tokenizer_facts& facts);

  hanmo_tokenizer* tokenizer_;  // owned
  hanmo_tokenizer_facts facts_;
  SpecialTokenIds special_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TEXT_TOKENIZER_H_
