// The guide of one text being written: what its next token may be. Compiling the guide and finding
// the next mask run on ATen's inter-op threads while the prompt or the token is run.
#ifndef HANMO_WORKERS_TEXT_GUIDE_H_
#define HANMO_WORKERS_TEXT_GUIDE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/text/guide.h"
#include "workers/models/token_sampler.h"

namespace hanmo {

// The vocabulary of a text checkpoint's tokenizer.
std::shared_ptr<const BackgroundGuideVocabulary> GuidesOf(const std::string& folder,
                                                          const std::string& architecture);

// Used by the compute thread. Dropping one waits for nothing: what runs is forgotten when it ends.
class TextGuide {
 public:
  // Begins to compile `guide` and to go on by `emitted`, tokens that it allowed elsewhere.
  TextGuide(std::shared_ptr<const BackgroundGuideVocabulary> vocabulary,
            std::shared_ptr<const std::string> guide, std::vector<uint32_t> emitted);

  // What may come next, valid until Consume. Ending ids are possible exactly where the text may end
  // (or the guide has them as ordinary tokens); where it must end, also before min_tokens. Waits
  // for what runs. INVALID_ARGUMENT "guide: ..." when the guide is wrong, too complex here, or
  // allows nothing.
  absl::StatusOr<TokenRules> Next(absl::Span<const uint32_t> ending_ids);
  // Goes on by the token drawn, which is none that ended the text.
  void Consume(uint32_t id);

 private:
  struct State;
  const std::shared_ptr<State> state_;
};

}  // namespace hanmo

#endif  // HANMO_WORKERS_TEXT_GUIDE_H_
