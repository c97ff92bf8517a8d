// Turns the tokens of one running generation into text piece by piece. Every piece is whole UTF-8
// characters, and all pieces together equal Tokenizer::Decode of all tokens (one case apart, see
// Append). One object per sample, used by one thread at a time.
#ifndef HANMO_SERVER_TEXT_DETOKENIZER_H_
#define HANMO_SERVER_TEXT_DETOKENIZER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/text/tokenizer.h"

namespace hanmo {

class Detokenizer {
 public:
  // `tokenizer` outlives this object. `skip_special` leaves special tokens out.
  Detokenizer(const Tokenizer& tokenizer, bool skip_special);

  // These tokens stand before the ones to come: the joint is as Decode of both has it. Before the
  // first Append, and only where the tokenizer is not byte-level: there a joint is like any other.
  void SetContext(absl::Span<const uint32_t> ids);

  // Takes the next tokens, returns the text that is certain by now; it may be empty. Bytes that can
  // still become a character are held: at most three for a byte-level tokenizer, a run of byte
  // tokens
  // ("<0xE4>") for one with byte fallback, everything for one that trims (CLIP). Errors are our own
  // defects or a lack of memory.
  //
  // The exception: clean_up_tokenization_spaces of a WordPiece checkpoint reaches over the border
  // of two pieces, and is only seen within a piece.
  absl::StatusOr<std::string> Append(absl::Span<const uint32_t> ids);

  // The text still held; U+FFFD for a character that never became whole. Call once, at the end.
  absl::StatusOr<std::string> Finish();

 private:
  absl::StatusOr<std::string> AppendBytes(absl::Span<const uint32_t> ids);
  absl::StatusOr<std::string> AppendWindow(absl::Span<const uint32_t> ids);
  absl::StatusOr<std::string> DecodeWindow(bool last);

  const Tokenizer& tokenizer_;
  const bool skip_special_;

  // Byte-level: the beginning of a character.
  std::string pending_;
  // Else: `window_` starts with the `emitted_` tokens of the last piece, as context for the joints.
  std::vector<uint32_t> window_;
  size_t emitted_ = 0;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TEXT_DETOKENIZER_H_
