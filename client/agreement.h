// How much of an expected text a text says.
#ifndef HANMO_CLIENT_AGREEMENT_H_
#define HANMO_CLIENT_AGREEMENT_H_

#include "absl/strings/string_view.h"

namespace hanmo {

// ROUGE-L of characters, 0 to 1: the harmonic mean of the shares of both texts that their longest
// common subsequence takes. Spaces and punctuation do not count. 1 for two texts without
// characters.
double Agreement(absl::string_view text, absl::string_view expected);

}  // namespace hanmo

#endif  // HANMO_CLIENT_AGREEMENT_H_
