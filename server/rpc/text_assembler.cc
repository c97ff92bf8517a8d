#include "server/rpc/text_assembler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/strip.h"

namespace hanmo {

absl::StatusOr<TextAssembler> TextAssembler::Create(TextAssemblerOptions options) {
  auto stops = StopStrings::Create(options.stop, options.include_stop);
  if (!stops.ok()) return stops.status();
  return TextAssembler(std::move(options), *std::move(stops));
}

TextAssembler::TextAssembler(TextAssemblerOptions options, StopStrings stops)
    : options_(std::move(options)), stops_(std::move(stops)) {
  if (options_.tokenizer == nullptr) return;
  detokenizer_.emplace(*options_.tokenizer, true);
  if (!options_.begun.empty()) detokenizer_->SetContext(options_.begun);
}

std::string TextAssembler::Spaced(std::string text) {
  if (!options_.caption || text.empty()) return text;
  // A piece that continues a word, with no word before it.
  const bool first = !std::exchange(began_, true) && options_.begun.empty();
  return spacing_.Append(first ? absl::StripPrefix(text, "##") : absl::string_view(text));
}

absl::StatusOr<TextAssembler::Piece> TextAssembler::Append(absl::Span<const Token> tokens) {
  Piece piece;
  for (const Token& token : tokens) {
    if (stopped_by() != nullptr) break;
    ++piece.tokens;
    if (!detokenizer_ || IsEnding(token.id)) continue;
    auto text = detokenizer_->Append({&token.id, 1});
    if (!text.ok()) return text.status();
    std::string spaced = Spaced(*std::move(text));
    piece.text += options_.stop.empty() ? std::move(spaced) : stops_.Append(spaced);
  }
  return piece;
}

absl::StatusOr<std::string> TextAssembler::Finish() {
  if (!detokenizer_ || stopped_by() != nullptr) return std::string();
  auto text = detokenizer_->Finish();
  if (!text.ok()) return text;
  std::string rest = Spaced(*std::move(text)) + spacing_.Finish();
  if (options_.stop.empty()) return rest;
  std::string shown = stops_.Append(rest);
  shown += stops_.Finish();
  return shown;
}

bool TextAssembler::IsEnding(uint32_t id) const {
  return std::find(options_.ending_ids.begin(), options_.ending_ids.end(), id) !=
         options_.ending_ids.end();
}

}  // namespace hanmo
