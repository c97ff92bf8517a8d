#include "workers/models/ernie_vilg_slots.h"

#include <algorithm>

namespace hanmo {
namespace {

void Append(int64_t begin, int64_t end, std::vector<SlotRange>& reads) {
  const auto first = static_cast<int32_t>(begin), last = static_cast<int32_t>(end);
  if (!reads.empty() && reads.back().end == first) {
    reads.back().end = last;
  } else {
    reads.push_back({first, last});
  }
}

}  // namespace

ErnieVilgSlots::ErnieVilgSlots(const ErnieVilgConfig& config, int64_t source_tokens, bool paints)
    : config_(config),
      source_(source_tokens),
      paints_(paints),
      target_((source_tokens + kPageTokens - 1) / kPageTokens * kPageTokens),
      picture_(paints ? target_ + 1 : 0) {}

int64_t ErnieVilgSlots::positions() const {
  return target_ + (paints_ ? config_.picture_tokens() : config_.text_tokens);
}

int64_t ErnieVilgSlots::SlotsUpTo(int64_t end) const {
  // A column reaches through the whole picture.
  return paints_ && end > picture_ ? positions() : end;
}

int64_t ErnieVilgSlots::PictureToken(int64_t position) const {
  const bool inside = paints_ ? position >= picture_ : position < source_;
  return inside ? position - picture_ : -1;
}

int32_t ErnieVilgSlots::SlotOf(Sight sight, int64_t position) const {
  const int64_t token = PictureToken(position);
  if (token < 0 || sight != Sight::kColumn) return static_cast<int32_t>(position);
  const int64_t row = token / config_.columns, column = token % config_.columns;
  return static_cast<int32_t>(picture_ + column * config_.rows + row);
}

void ErnieVilgSlots::FindReads(Sight sight, int64_t position, std::vector<SlotRange>& reads) const {
  reads.clear();
  const int64_t token = PictureToken(position);
  if (token < 0 || paints_) Append(0, source_, reads);  // words, or a whole picture
  if (position < target_ && token < 0) return;
  if (token < 0) return Append(target_, position + 1, reads);
  if (paints_) Append(target_, target_ + 1, reads);
  AppendPicture(sight, token, reads);
}

void ErnieVilgSlots::AppendPicture(Sight sight, int64_t token,
                                   std::vector<SlotRange>& reads) const {
  const int64_t row = token / config_.columns, column = token % config_.columns;
  const auto append = [&](int64_t first, int64_t last) {
    Append(picture_ + first, picture_ + last + 1, reads);
  };
  // A target token sees nothing behind itself, one of a source all of its line.
  switch (sight) {
    case Sight::kAll:
      return append(0, paints_ ? token : config_.picture_tokens() - 1);
    case Sight::kRow: {
      const int64_t first = row * config_.columns;
      return append(first, paints_ ? token : first + config_.columns - 1);
    }
    case Sight::kColumn: {
      const int64_t first = column * config_.rows;
      return append(first, first + (paints_ ? row : config_.rows - 1));
    }
    case Sight::kWindow:
      return AppendWindow(token, reads);
  }
}

void ErnieVilgSlots::AppendWindow(int64_t token, std::vector<SlotRange>& reads) const {
  const int64_t row = token / config_.columns, column = token % config_.columns;
  const int64_t reach = config_.window_reach;
  const int64_t last_row = paints_ ? row : std::min(row + reach, config_.rows - 1);
  const int64_t first_column = std::max<int64_t>(0, column - reach);
  for (int64_t r = std::max<int64_t>(0, row - reach); r <= last_row; ++r) {
    const int64_t last_column =
        paints_ && r == row ? column : std::min(column + reach, config_.columns - 1);
    const int64_t first = picture_ + r * config_.columns;
    Append(first + first_column, first + last_column + 1, reads);
  }
}

}  // namespace hanmo
