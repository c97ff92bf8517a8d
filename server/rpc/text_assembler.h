// The text of one sample, from its tokens: whole characters, stop strings, nothing after them.
#ifndef HANMO_SERVER_RPC_TEXT_ASSEMBLER_H_
#define HANMO_SERVER_RPC_TEXT_ASSEMBLER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/batcher/sink.h"
#include "server/text/chinese_spacing.h"
#include "server/text/detokenizer.h"
#include "server/text/stop_strings.h"
#include "server/text/tokenizer.h"

namespace hanmo {

struct TextAssemblerOptions {
  const Tokenizer* tokenizer = nullptr;  // null: the text stays empty
  std::vector<std::string> stop;
  bool include_stop = false;
  // Ids that end the sample; they are in the token ids, not in the text.
  std::vector<uint32_t> ending_ids;
  // A caption: Chinese from a WordPiece vocabulary, spaced as people write it, that goes on after
  // `begun`.
  bool caption = false;
  std::vector<uint32_t> begun;
};

// One thread at a time.
class TextAssembler {
 public:
  // What one call to Append took and made certain.
  struct Piece {
    std::string text;
    // Tokens taken: all, or those up to the end of a stop string.
    size_t tokens = 0;
  };

  // INVALID_ARGUMENT when the stop strings are not valid.
  static absl::StatusOr<TextAssembler> Create(TextAssemblerOptions options);

  // Errors are our own defects or a lack of memory.
  absl::StatusOr<Piece> Append(absl::Span<const Token> tokens);
  // The text still held. Once, at the end.
  absl::StatusOr<std::string> Finish();

  // The stop string that was met; takes no more tokens then.
  const std::string* stopped_by() const {
    return stops_.match() ? &options_.stop[stops_.match()->index] : nullptr;
  }

 private:
  TextAssembler(TextAssemblerOptions options, StopStrings stops);

  bool IsEnding(uint32_t id) const;
  std::string Spaced(std::string text);

  TextAssemblerOptions options_;
  StopStrings stops_;
  ChineseSpacing spacing_;
  bool began_ = false;  // with text
  std::optional<Detokenizer> detokenizer_;
};

}  // namespace hanmo

#endif  // HANMO_SERVER_RPC_TEXT_ASSEMBLER_H_
