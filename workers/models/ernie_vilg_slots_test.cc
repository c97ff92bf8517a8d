#include "workers/models/ernie_vilg_slots.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "absl/strings/str_cat.h"

namespace hanmo {
namespace {

// The document's words: who may see whom, a pair of positions at a time.
class Mask {
 public:
  Mask(const ErnieVilgConfig& config, int64_t source, bool paints)
      : config_(config), paints_(paints), slots_(config, source, paints) {}

  bool Sees(Sight sight, int64_t reader, int64_t read) const {
    if (slots_.IsPadding(read)) return false;
    const bool is_target = reader >= slots_.target_begin();
    const bool of_target = read >= slots_.target_begin();
    if (of_target && (!is_target || read > reader)) return false;
    const int64_t a = slots_.PictureToken(reader), b = slots_.PictureToken(read);
    if (a < 0 || b < 0) return true;
    const int64_t rows = std::abs(a / config_.columns - b / config_.columns);
    const int64_t columns = std::abs(a % config_.columns - b % config_.columns);
    switch (sight) {
      case Sight::kAll:
        return true;
      case Sight::kRow:
        return rows == 0;
      case Sight::kColumn:
        return columns == 0;
      case Sight::kWindow:
        return rows <= config_.window_reach && columns <= config_.window_reach;
    }
    return false;
  }

  // Compares all tokens of a whole sequence.
  void Compare(Sight sight) const {
    SCOPED_TRACE(absl::StrCat("sight ", static_cast<int>(sight), " paints ", paints_, " source ",
                              slots_.source_tokens(), " grid ", config_.rows, " x ",
                              config_.columns));
    std::set<int32_t> taken;
    for (int64_t p = 0; p < slots_.positions(); ++p) {
      if (slots_.IsPadding(p)) continue;
      const int32_t slot = slots_.SlotOf(sight, p);
      EXPECT_TRUE(taken.insert(slot).second) << "two tokens in slot " << slot;
      // A source is run whole.
      EXPECT_LT(slot, slots_.SlotsUpTo(std::max(p + 1, slots_.source_tokens())));
      CompareReads(sight, p);
    }
  }

 private:
  void CompareReads(Sight sight, int64_t position) const {
    std::set<int32_t> expected, found;
    for (int64_t q = 0; q < slots_.positions(); ++q) {
      if (Sees(sight, position, q)) expected.insert(slots_.SlotOf(sight, q));
    }
    std::vector<SlotRange> reads = {{77, 78}};
    slots_.FindReads(sight, position, reads);
    int32_t end = -1;
    for (const SlotRange& range : reads) {
      EXPECT_GT(range.begin, end) << "runs that touch, or fall";
      for (int32_t slot = range.begin; slot < range.end; ++slot) found.insert(slot);
      end = range.end;
    }
    EXPECT_EQ(found, expected) << "position " << position;
  }

  const ErnieVilgConfig& config_;
  const bool paints_;
  const ErnieVilgSlots slots_;
};

ErnieVilgConfig Grid(int64_t rows, int64_t columns, int64_t reach) {
  ErnieVilgConfig config;
  config.rows = rows;
  config.columns = columns;
  config.window_reach = reach;
  config.text_tokens = 20;
  return config;
}

TEST(ErnieVilgSlotsTest, TokensReadWhatTheMaskLetsThemSee) {
  for (const auto& [rows, columns, reach] :
       {std::tuple{1, 1, 0}, {3, 5, 1}, {7, 2, 5}, {6, 18, 2}, {4, 4, 0}, {1, 9, 3}, {16, 1, 2}}) {
    const ErnieVilgConfig config = Grid(rows, columns, reach);
    for (const Sight sight : kSights) {
      for (const int64_t source : {1, 15, 16, 17, 20}) Mask(config, source, true).Compare(sight);
      Mask(config, config.picture_tokens(), false).Compare(sight);
    }
  }
}

TEST(ErnieVilgSlotsTest, APaintedTokenReadsOneRunOfItsPictureAtMostInRowsAndColumns) {
  const ErnieVilgConfig config = Grid(32, 32, 5);
  const ErnieVilgSlots slots(config, 32, true);
  const auto read = [&](Sight sight) {
    std::vector<SlotRange> reads;
    int64_t most = 0;
    for (int64_t p = slots.target_begin() + 1; p < slots.positions(); ++p) {
      int64_t count = 0;
      slots.FindReads(sight, p, reads);
      for (const SlotRange& range : reads) count += range.end - range.begin;
      most = std::max(most, count);
      if (sight != Sight::kWindow) {
        EXPECT_LE(reads.size(), 2u);
      }
    }
    return most;
  };
  EXPECT_EQ(read(Sight::kRow), 65);
  EXPECT_EQ(read(Sight::kColumn), 65);
  EXPECT_EQ(read(Sight::kWindow), 94);
  EXPECT_EQ(read(Sight::kAll), 32 + 1 + 1023);
}

}  // namespace
}  // namespace hanmo
