#include "server/text/detokenizer.h"

#include <cstddef>
#include <utility>

#include "absl/strings/match.h"
#include "server/text/utf8.h"

namespace hanmo {
namespace {

// "<0xE4>": one byte of a character that the vocabulary lacks.
bool IsByteToken(const TokenPiece& piece) {
  return piece.bytes.size() == 6 && absl::StartsWith(piece.bytes, "<0x") &&
         absl::EndsWith(piece.bytes, ">");
}

}  // namespace

Detokenizer::Detokenizer(const Tokenizer& tokenizer, bool skip_special)
    : tokenizer_(tokenizer), skip_special_(skip_special) {}

void Detokenizer::SetContext(absl::Span<const uint32_t> ids) {
  window_.assign(ids.begin(), ids.end());
  emitted_ = window_.size();
}

absl::StatusOr<std::string> Detokenizer::Append(absl::Span<const uint32_t> ids) {
  return tokenizer_.is_byte_level() ? AppendBytes(ids) : AppendWindow(ids);
}

absl::StatusOr<std::string> Detokenizer::AppendBytes(absl::Span<const uint32_t> ids) {
  for (const uint32_t id : ids) {
    auto piece = tokenizer_.Piece(id);
    if (!piece.ok()) return piece.status();
    if (!(skip_special_ && piece->special)) pending_ += piece->bytes;
  }
  std::string text;
  pending_.erase(0, AppendUtf8(pending_, &text));
  return text;
}

absl::StatusOr<std::string> Detokenizer::AppendWindow(absl::Span<const uint32_t> ids) {
  std::string text;
  for (const uint32_t id : ids) {
    auto piece = tokenizer_.Piece(id);
    if (!piece.ok()) return piece.status();
    // What Decode leaves out, unknown ids too, must not seem to end a run of byte tokens.
    if (piece->bytes.empty() || (skip_special_ && piece->special)) continue;
    window_.push_back(id);
    // What a run of byte tokens means is certain only when it ends.
    if (tokenizer_.trims_decoded() || IsByteToken(*piece)) continue;
    auto certain = DecodeWindow(/*last=*/false);
    if (!certain.ok()) return certain.status();
    text += *certain;
  }
  return text;
}

absl::StatusOr<std::string> Detokenizer::DecodeWindow(bool last) {
  auto whole = tokenizer_.Decode(window_, skip_special_);
  if (!whole.ok()) return whole.status();
  auto known = tokenizer_.Decode(absl::MakeConstSpan(window_).first(emitted_), skip_special_);
  if (!known.ok()) return known.status();
  const bool unfinished = absl::EndsWith(*whole, kReplacementCharacter);
  // A window without text of its own is no context: what follows would lose its leading space.
  if (whole->size() <= known->size() || (unfinished && !last)) return "";
  window_.erase(window_.begin(), window_.begin() + static_cast<ptrdiff_t>(emitted_));
  emitted_ = window_.size();
  return whole->substr(known->size());
}

absl::StatusOr<std::string> Detokenizer::Finish() {
  if (!tokenizer_.is_byte_level()) return DecodeWindow(/*last=*/true);
  return std::exchange(pending_, "").empty() ? std::string() : std::string(kReplacementCharacter);
}

}  // namespace hanmo
