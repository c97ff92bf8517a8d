// Takes out of WordPiece's text the spaces that no Chinese text has. One object per sample, used by
// one thread at a time.
#ifndef HANMO_SERVER_TEXT_CHINESE_SPACING_H_
#define HANMO_SERVER_TEXT_CHINESE_SPACING_H_

#include <string>

#include "absl/strings/string_view.h"

namespace hanmo {

// BERT's vocabularies cut between all Chinese characters and do not remember where there was a
// space: the decoder puts one before each token. This leaves out those beside a Chinese (or
// Japanese) character or a full-width sign: "一 只 cat ， two cats" becomes "一只cat，two cats".
class ChineseSpacing {
 public:
  // Takes the next piece (whole characters), returns what is certain by now: a space at its end is
  // held until it is known what follows.
  std::string Append(absl::string_view piece);
  // The space still held. Once, at the end.
  std::string Finish();

 private:
  bool after_chinese_ = false;  // of the last character that is no space
  bool space_ = false;          // held
};

}  // namespace hanmo

#endif  // HANMO_SERVER_TEXT_CHINESE_SPACING_H_
