// Where the tokens of an ERNIE-ViLG sequence lie in the slots of its KV pages, and which slots each
// of them reads: the mask of docs/ernie-vilg.md as runs of slots.
#ifndef HANMO_WORKERS_MODELS_ERNIE_VILG_SLOTS_H_
#define HANMO_WORKERS_MODELS_ERNIE_VILG_SLOTS_H_

#include <cstdint>
#include <vector>

#include "workers/kernels/text_kernels.h"
#include "workers/models/ernie_vilg_config.h"

namespace hanmo {

// Positions count the source, its padding to whole pages, the token that begins the target, and the
// target. Plain numbers; cheap to make.
class ErnieVilgSlots {
 public:
  // A text of `source_tokens` that a picture is painted from, or (paints false) a picture that a
  // text is written about, with source_tokens = config.picture_tokens(). The config outlives it.
  ErnieVilgSlots(const ErnieVilgConfig& config, int64_t source_tokens, bool paints);

  int64_t source_tokens() const { return source_; }
  // Of BOI or BOT.
  int64_t target_begin() const { return target_; }
  // One past the last token that is ever run.
  int64_t positions() const;
  // Slots that may be written or read once tokens up to `end` are run.
  int64_t SlotsUpTo(int64_t end) const;

  bool IsPadding(int64_t position) const { return position >= source_ && position < target_; }
  // Its number in raster order, or -1 for words, BOI, BOT and padding.
  int64_t PictureToken(int64_t position) const;

  // Of tokens that are not padding:
  int32_t SlotOf(Sight sight, int64_t position) const;
  // What the token reads, itself included: rising runs that do not touch each other.
  void FindReads(Sight sight, int64_t position, std::vector<SlotRange>& reads) const;

 private:
  void AppendPicture(Sight sight, int64_t token, std::vector<SlotRange>& reads) const;
  void AppendWindow(int64_t token, std::vector<SlotRange>& reads) const;

  const ErnieVilgConfig& config_;
  const int64_t source_;
  const bool paints_;
  const int64_t target_;
  const int64_t picture_;  // position of the first picture token
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_MODELS_ERNIE_VILG_SLOTS_H_
