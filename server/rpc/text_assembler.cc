#include "server/rpc/text_assembler.h"

#include <algorithm>
#include <utility>

namespace hanmo {

absl::StatusOr<TextAssembler> TextAssembler::Create(TextAssemblerOptions options) {
  auto stops = StopStrings::Create(options.stop, options.include_stop);
  if (!stops.ok()) return stops.status();
  return TextAssembler(std::move(options), *std::move(stops));
}

TextAssembler::TextAssembler(TextAssemblerOptions options, StopStrings stops)
    : options_(std::move(options)), stops_(std::move(stops)) {
  if (options_.tokenizer != nullptr) detokenizer_.emplace(*options_.tokenizer, true);
}

absl::StatusOr<TextAssembler::Piece> TextAssembler::Append(absl::Span<const Token> tokens) {
  Piece piece;
  for (const Token& token : tokens) {
    if (stopped_by() != nullptr) break;
    ++piece.tokens;
    if (!detokenizer_ || IsEnding(token.id)) continue;
    auto text = detokenizer_->Append({&token.id, 1});
    if (!text.ok()) return text.status();
    piece.text += options_.stop.empty() ? *std::move(text) : stops_.Append(*text);
  }
  return piece;
}

absl::StatusOr<std::string> TextAssembler::Finish() {
  if (!detokenizer_ || stopped_by() != nullptr) return std::string();
  auto text = detokenizer_->Finish();
  if (!text.ok() || options_.stop.empty()) return text;
  std::string shown = stops_.Append(*text);
  shown += stops_.Finish();
  return shown;
}

bool TextAssembler::IsEnding(uint32_t id) const {
  return std::find(options_.ending_ids.begin(), options_.ending_ids.end(), id) !=
         options_.ending_ids.end();
}

}  // namespace hanmo
